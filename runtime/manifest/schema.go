package manifest

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
)

// Schema is the JSON Schema (draft 2020-12) of agents' front matter or of
// bottles, for editors: kind is agent or bottle. It is made of the tags that
// the decoder reads.
func Schema(kind string) ([]byte, bool) {
	types := map[string]reflect.Type{"agent": reflect.TypeFor[Agent](), "bottle": reflect.TypeFor[Bottle]()}
	t, ok := types[kind]
	if !ok {
		return nil, false
	}
	s := object(t)
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "carboy " + kind
	b, err := json.MarshalIndent(s, "", "  ")
	return b, err == nil
}

type schema = map[string]any

func object(t reflect.Type) schema {
	properties, required := schema{}, []string{}
	for _, f := range fields(t) {
		p := describe(t.Field(f.index).Type, f)
		if f.required {
			required = append(required, f.key)
		} else {
			p = orNull(p)
		}
		p["description"] = f.doc
		properties[f.key] = p
	}
	s := schema{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// orNull allows a key without a value, which is as if it were not there.
func orNull(s schema) schema {
	if t, ok := s["type"]; ok && s["enum"] == nil {
		if list, ok := t.([]string); ok {
			s["type"] = append(slices.Clone(list), "null")
		} else {
			s["type"] = []any{t, "null"}
		}
		return s
	}
	return schema{"anyOf": []schema{s, {"type": "null"}}}
}

func describe(t reflect.Type, f field) schema {
	if reflect.PointerTo(t).Implements(reflect.TypeFor[texter]()) {
		return schema{"anyOf": []schema{text(f), compound(t, f)}}
	}
	return compound(t, f)
}

func compound(t reflect.Type, f field) schema {
	switch t.Kind() {
	case reflect.Pointer:
		return describe(t.Elem(), f)
	case reflect.Struct:
		return object(t)
	case reflect.Map:
		s := schema{"type": "object", "additionalProperties": text(field{form: f.values})}
		if f.keys.pattern != nil {
			s["propertyNames"] = schema{"pattern": f.keys.pattern.String()}
		}
		return s
	case reflect.Slice:
		return schema{"type": "array", "items": describe(t.Elem(), f)}
	case reflect.String:
		return text(f)
	case reflect.Bool:
		return schema{"type": "boolean"}
	}
	least, most := bounds(t)
	if t.Kind() == reflect.Float64 {
		return schema{"type": "number", "minimum": least, "maximum": most}
	}
	return schema{"type": "integer", "minimum": math.Trunc(least), "maximum": most}
}

// noControl is what control leaves of a text.
const noControl = `^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$`

func text(f field) schema {
	switch {
	case f.enum != nil:
		return schema{"type": "string", "enum": f.enum}
	case f.form.pattern != nil:
		return schema{"type": "string", "pattern": f.form.pattern.String()}
	}
	return schema{"type": []string{"string", "number", "boolean"}, "pattern": noControl}
}
