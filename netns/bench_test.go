package netns

import (
	"slices"
	"testing"
	"time"
)

// BenchmarkBottle reports the median of each step in milliseconds, for a bottle
// that is the first and last on its host and for one beside another.
func BenchmarkBottle(b *testing.B) {
	needRoot(b)
	for _, dir := range pluginDirs(b) {
		name := pluginName(dir)
		b.Run(name+"/alone", func(b *testing.B) { benchmark(b, newWorld(b), dir) })
		b.Run(name+"/beside", func(b *testing.B) {
			w := newWorld(b)
			w.bottle(b, w.config("other", dir))
			benchmark(b, w, dir)
		})
	}
}

func benchmark(b *testing.B, w *world, dir string) {
	times := map[string][]time.Duration{}
	step := func(name string, f func() error) {
		began := time.Now()
		must(b, f())
		times[name] = append(times[name], time.Since(began))
	}
	for b.Loop() {
		var n *Network
		step("new", func() (err error) { n, err = New(w.config("abc", dir)); return err })
		step("open", n.Open)
		step("attach", func() error { return n.Attach(b.Context()) })
		step("verify", n.Verify)
		step("reassert", func() error { return n.Reassert(b.Context()) })
		// A bottle lives for a while; one that ends at once waits for the kernel,
		// which still builds up or takes down its namespaces (20 to 50 ms).
		time.Sleep(300 * time.Millisecond)
		step("down", n.down)
	}
	b.ReportMetric(0, "ns/op")
	for name, all := range times {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, name+"-ms")
	}
}
