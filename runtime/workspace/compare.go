package workspace

// delta is what makes one tree another.
type delta struct {
	gone    []string // with all that is in them
	made    []*item  // directories before what is in them
	renewed []*item  // directories that only look different
	touched map[string]bool
}

// item is one entry of the new tree.
type item struct {
	path  string
	entry *Entry // in the new index
	old   bool   // something else is at its path
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// compare goes through both, whose order is the same.
func compare(old, now Index) *delta {
	d := &delta{touched: map[string]bool{}}
	if !old.Root.same(now.Root) {
		d.touched[""] = true
	}
	i := 0
	for n := range now.Directories {
		dir := &now.Directories[n]
		for i < len(old.Directories) && old.Directories[i].Path < dir.Path {
			i++
		}
		var before []Entry
		if i < len(old.Directories) && old.Directories[i].Path == dir.Path {
			before = old.Directories[i].Entries
		}
		d.compareDirectory(before, dir)
	}
	d.completeLinks(now)
	return d
}

func (d *delta) compareDirectory(before []Entry, now *Directory) {
	for i := range now.Entries {
		e := &now.Entries[i]
		for len(before) > 0 && before[0].Name < e.Name {
			d.remove(now.Path, before[0].Name)
			before = before[1:]
		}
		it := &item{path: join(now.Path, e.Name), entry: e}
		if len(before) == 0 || before[0].Name != e.Name {
			d.make(now.Path, it)
			continue
		}
		was := before[0]
		before = before[1:]
		switch {
		case was.same(*e):
		case was.isDir() && e.isDir():
			d.renewed = append(d.renewed, it)
		default:
			it.old = true
			d.make(now.Path, it)
		}
	}
	for _, e := range before {
		d.remove(now.Path, e.Name)
	}
}

func (d *delta) make(dir string, it *item) {
	d.made = append(d.made, it)
	d.touched[dir] = true
}

func (d *delta) remove(dir, name string) {
	d.gone = append(d.gone, join(dir, name))
	d.touched[dir] = true
}

// inode is a file whatever its names are.
type inode struct{ dev, ino uint64 }

func (e Entry) inode() inode { return inode{e.Dev, e.Ino} }

// completeLinks makes every name of a file again where one is made: a write to
// one name in an upper layer would part it from the others.
func (d *delta) completeLinks(now Index) {
	made, groups := map[string]bool{}, map[inode]bool{}
	for _, it := range d.made {
		if it.entry.linked() {
			made[it.path], groups[it.entry.inode()] = true, true
		}
	}
	if len(groups) == 0 {
		return
	}
	for n := range now.Directories {
		dir := &now.Directories[n]
		for i := range dir.Entries {
			e := &dir.Entries[i]
			if path := join(dir.Path, e.Name); e.linked() && groups[e.inode()] && !made[path] {
				d.make(dir.Path, &item{path: path, entry: e, old: true})
			}
		}
	}
}

func (d *delta) empty() bool {
	return len(d.gone)+len(d.made)+len(d.renewed)+len(d.touched) == 0
}

// directories are the new tree's whose looks are to be set when all in them is
// done: those made and renewed, and those in which anything was.
func (d *delta) directories(now *Index) []*item {
	want := d.touched
	for _, it := range d.renewed {
		want[it.path] = true
	}
	for _, it := range d.made {
		if it.entry.isDir() {
			want[it.path] = true
		}
	}
	var all []*item
	if want[""] {
		all = append(all, &item{entry: &now.Root})
	}
	for n := range now.Directories {
		dir := &now.Directories[n]
		for i := range dir.Entries {
			if e := &dir.Entries[i]; e.isDir() && want[join(dir.Path, e.Name)] {
				all = append(all, &item{path: join(dir.Path, e.Name), entry: e})
			}
		}
	}
	return all
}
