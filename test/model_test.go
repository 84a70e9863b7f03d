package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
)

type object = map[string]any

// model answers as a provider's model would that reads a file of the workspace,
// changes a word in it and says so. It speaks Anthropic's Messages API and
// OpenAI's Responses API, as far as their programs ask.
type model struct {
	file, from, to string

	mu       sync.Mutex
	requests []modelRequest
}

// modelRequest is what arrived.
type modelRequest struct{ key, body string }

const modelSays = "The door is painted."

func (m *model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "POST /v1/messages":
		m.keep(r.Header.Get("X-Api-Key"), body)
		m.message(w, string(body))
	case "GET /backend-api/wham/accounts/check": // where the account's workspace is
		_ = json.NewEncoder(w).Encode(object{"accounts": []object{{
			"id": chatGPTAccount, "structure": "personal", "plan_type": "plus",
			"workspace_backend_origin": "https://chatgpt.com", "account_routing_override": "NO_CONSTRAINT",
		}}, "default_account_id": chatGPTAccount, "account_ordering": []string{chatGPTAccount}})
	case "POST /v1/responses", "POST /backend-api/codex/responses":
		m.keep(r.Header.Get("Authorization"), body)
		m.response(w, string(body))
	case "GET /v1/responses", "GET /backend-api/codex/responses":
		w.WriteHeader(http.StatusUpgradeRequired) // no WebSocket: it goes on without
	default:
		http.NotFound(w, r)
	}
}

// readBody undoes what Codex does with an account's requests.
func readBody(r *http.Request) ([]byte, error) {
	if r.Header.Get("Content-Encoding") != "zstd" {
		return io.ReadAll(r.Body)
	}
	d, err := zstd.NewReader(r.Body)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return io.ReadAll(d)
}

func (m *model) keep(key string, body []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests = append(m.requests, modelRequest{key, string(body)})
}

// take returns what has arrived since.
func (m *model) take() []modelRequest {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := m.requests
	m.requests = nil
	return taken
}

var toolResult = regexp.MustCompile(`"type":"(tool_result|function_call_output|custom_tool_call_output)"`)

// message is one turn of the Messages API, as a stream of events.
func (m *model) message(w http.ResponseWriter, request string) {
	tool := func(name string, input object) (object, object) {
		text, _ := json.Marshal(input) // texts alone
		return object{"type": "tool_use", "id": "toolu_" + name, "name": name, "input": object{}},
			object{"type": "input_json_delta", "partial_json": string(text)}
	}
	var block, delta object
	stop := "tool_use"
	switch len(toolResult.FindAllString(request, -1)) {
	case 0:
		block, delta = tool("Read", object{"file_path": m.file})
	case 1:
		block, delta = tool("Edit", object{"file_path": m.file, "old_string": m.from, "new_string": m.to})
	default:
		stop = "end_turn"
		block, delta = object{"type": "text", "text": ""}, object{"type": "text_delta", "text": modelSays}
	}
	usage := object{"input_tokens": 1, "output_tokens": 1}
	events(w, object{"type": "message_start", "message": object{
		"id": "msg_1", "type": "message", "role": "assistant", "model": "test", "content": []object{}, "usage": usage,
	}},
		object{"type": "content_block_start", "index": 0, "content_block": block},
		object{"type": "content_block_delta", "index": 0, "delta": delta},
		object{"type": "content_block_stop", "index": 0},
		object{"type": "message_delta", "delta": object{"stop_reason": stop}, "usage": usage},
		object{"type": "message_stop"})
}

// response is one turn of the Responses API.
func (m *model) response(w http.ResponseWriter, request string) {
	item := object{"type": "message", "id": "msg_1", "role": "assistant", "content": []object{{"type": "output_text", "text": modelSays}}}
	if !toolResult.MatchString(request) {
		command := fmt.Sprintf("cat %[1]s && sed -i s/%[2]s/%[3]s/ %[1]s", m.file, m.from, m.to)
		text, _ := json.Marshal(object{"cmd": command}) // a text alone
		item = object{"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "exec_command", "arguments": string(text)}
	}
	usage := object{"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
	events(w, object{"type": "response.created", "response": object{"id": "resp_1"}},
		object{"type": "response.output_item.done", "output_index": 0, "item": item},
		object{"type": "response.completed", "response": object{"id": "resp_1", "usage": usage}})
}

// events are server-sent ones.
func events(w http.ResponseWriter, all ...object) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, e := range all {
		data, _ := json.Marshal(e)                                        // no value of it fails
		_, _ = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", e["type"], data) // the client may have gone
	}
}

// said is all that a request held, with its JSON escapes.
func said(requests []modelRequest) string {
	var all []string
	for _, r := range requests {
		all = append(all, r.body)
	}
	return strings.Join(all, "\n")
}
