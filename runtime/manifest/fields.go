package manifest

import (
	"reflect"
	"regexp"
	"strings"

	"carboy/runtime/manifest/presets"
	"carboy/runtime/provision"
	"carboy/runtime/proxy/policy"
	"carboy/runtime/skill"
)

// field is a key of a mapping, by the tags of the Go type.
type field struct {
	key      string
	index    int
	doc      string
	enum     []string
	form     form
	keys     form // of a mapping's own keys
	values   form // of their values
	required bool
	own      bool // not inherited
}

// form is what a text has to look like.
type form struct {
	name    string
	pattern *regexp.Regexp
	hint    string
	quiet   bool                    // what is there instead is not shown
	check   func(text string) error // what no pattern says
}

var forms = map[string]form{
	"name":     {name: "name", pattern: name, hint: "use lower-case letters, digits, '.', '_' and '-', at most 40"},
	"variable": {name: "name of a variable", pattern: variableName, hint: "use letters, digits and '_'"},
	"file":     {name: "name of a file", pattern: regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$`), hint: "use letters, digits, '.', '_' and '-', at most 64"},
	"skill":    {name: "name of a skill", pattern: skill.Name, hint: "use letters, digits, '.', '_' and '-', at most 64"},
	// What ParseSource takes for literal is the secret itself.
	"reference": {pattern: regexp.MustCompile(`^(\?|credential:|\$\{(.|\n|\r)*\}$)`), hint: "a secret is not written here: give ${NAME}, ?TEXT or credential:NAME", quiet: true, check: checkValue},
	"value":     {check: checkValue},

	"image":     {check: checkImage},
	"directory": {check: CheckDirectory},
	"target":    {check: CheckTarget},
	"source":    {check: writtenSource},
	"memory":    {check: checkSize(LeastMemory)},
	"disk":      {check: checkSize(LeastDisk)},
	"pattern":   {check: errorOf(policy.ParsePattern)},
	"private":   {check: errorOf(policy.ParsePrefix)},
	"host":      {check: checkHost},
	"hostkey":   {check: errorOf(HostKey)},
	"login":     {name: "name of a user", pattern: LoginName, hint: "use letters, digits and _ . @ + -, at most 64"},
	"identity":  {check: provision.CheckIdentity},
	"address":   {check: provision.CheckAddress},
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

var name = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,38}[a-z0-9])?$`)

// ValidName says whether an agent or a bottle can have that name.
func ValidName(s string) bool { return name.MatchString(s) }

func fields(t reflect.Type) (all []field) {
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		key := tag.Get("yaml")
		if key == "-" {
			continue
		}
		f := field{
			key: key, index: i, doc: tag.Get("doc"), form: forms[tag.Get("form")], keys: forms[tag.Get("keys")], values: forms[tag.Get("values")],
			required: tag.Get("required") != "", own: tag.Get("extend") == "own",
		}
		if words := tag.Get("enum"); words != "" {
			f.enum = strings.Split(words, "|")
		}
		if tag.Get("form") == "preset" {
			f.enum = presets.Names()
		}
		all = append(all, f)
	}
	return all
}

// strict fields take text only: numbers and truth values are no words of theirs.
func (f field) strict() bool { return f.enum != nil || f.form.pattern != nil }

// texter is a type that may be written as one text.
type texter interface{ setText(text string) }
