package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Bounds of what a bottle extends, directly or not.
const (
	deepest     = 8
	mostParents = 32
)

// family reads a bottle and those that it extends.
type family struct {
	dirs []Dir
	read int
}

// find reads the bottle from the first of the directories, from the from-th on,
// that has it. A parent comes from its child's directory or a later one: what
// an operator wrote is not changed by a user's file. It is named at a place, by
// the last of its children.
func (f *family) find(name string, from int, by Place, children []Bottle) (Bottle, error) {
	for i, d := range f.dirs[from:] {
		if d.Project {
			continue
		}
		b, err := d.bottle(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = by.Fault(circle(b, children))
		}
		if err != nil {
			return Bottle{}, err
		}
		return f.extend(b, from+i, append(slices.Clone(children), b))
	}
	return Bottle{}, by.Fault(missing(f.dirs[from:], "bottle "+name, filepath.Join("bottles", name+".yaml")))
}

// extend fills what b leaves open from its parents. line ends with b.
func (f *family) extend(b Bottle, dir int, line []Bottle) (Bottle, error) {
	var parents Bottle
	for _, name := range b.Extends {
		parent, err := f.parent(name, dir, line)
		if err != nil {
			return Bottle{}, err
		}
		sources := append(slices.Clone(parents.Parents), parent.Source)
		sources = append(sources, parent.Parents...)
		parents = over(parent, parents)
		parents.Parents = sources
	}
	b = over(b, parents)
	for _, source := range parents.Parents {
		if !slices.Contains(b.Parents, source) {
			b.Parents = append(b.Parents, source)
		}
	}
	return b, nil
}

func (f *family) parent(name string, dir int, line []Bottle) (Bottle, error) {
	by := line[len(line)-1].At("extends", name)
	if f.read++; f.read > mostParents || len(line) > deepest {
		return Bottle{}, by.Fault(fmt.Errorf("extends more than %d bottles, or deeper than %d: %w", mostParents, deepest, errdefs.ErrInvalidArgument))
	}
	return f.find(name, dir, by, line)
}

// circle is an error where b has itself among those that extend it.
func circle(b Bottle, children []Bottle) error {
	i := slices.IndexFunc(children, func(c Bottle) bool { return c.Source == b.Source })
	if i < 0 {
		return nil
	}
	var names []string
	for _, c := range append(slices.Clone(children[i:]), b) {
		names = append(names, c.Name)
	}
	return fmt.Errorf("bottle %s extends itself: %s: %w", b.Name, strings.Join(names, " -> "), errdefs.ErrInvalidArgument)
}

// over is a bottle with what it leaves open taken from another: of single
// values the child's win, mappings are merged by key, lists united. An image or
// a build of the child stands for both of the parent's.
func over(child, parent Bottle) Bottle {
	if child.Image != "" || child.Build != nil {
		parent.Image, parent.Build = "", nil
	}
	inherit(reflect.ValueOf(&child).Elem(), reflect.ValueOf(parent))
	child.places = child.places.over(parent.places)
	return child
}

func inherit(child, parent reflect.Value) {
	switch child.Kind() {
	case reflect.Struct:
		for _, f := range fields(child.Type()) {
			if !f.own {
				inherit(child.Field(f.index), parent.Field(f.index))
			}
		}
	case reflect.Map:
		merged := maps.Clone(parent.Interface().(map[string]string))
		if merged == nil {
			return
		}
		maps.Copy(merged, child.Interface().(map[string]string))
		child.Set(reflect.ValueOf(merged))
	case reflect.Slice:
		child.Set(unite(child, parent))
	default:
		if child.IsZero() {
			child.Set(parent)
		}
	}
}

// unite puts what is the parent's alone before what is the child's.
func unite(child, parent reflect.Value) reflect.Value {
	own := map[string]bool{}
	for i := range child.Len() {
		own[elementKey(child.Index(i))] = true
	}
	united := reflect.MakeSlice(child.Type(), 0, child.Len()+parent.Len())
	for i := range parent.Len() {
		if e := parent.Index(i); !own[elementKey(e)] {
			united = reflect.Append(united, e)
		}
	}
	if united = reflect.AppendSlice(united, child); united.Len() == 0 {
		return child
	}
	return united
}

func elementKey(e reflect.Value) string {
	if k, ok := e.Interface().(interface{ key() string }); ok {
		return k.key()
	}
	return e.String()
}
