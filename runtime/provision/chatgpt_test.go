package provision

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func token(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".signed"
}

func authJSON(access string) string {
	return fmt.Sprintf(`{"auth_mode": "chatgpt", "OPENAI_API_KEY": "sk-old", "tokens": {"id_token": "a.b.c", "access_token": %q,
		"refresh_token": "rt-precious", "account_id": "acc-1"}, "last_refresh": "2026-11-01T00:00:00Z", "further": "rt-more"}`, access)
}

// An agent has the account for some days, and not for good.
func TestChatGPT(t *testing.T) {
	access := token(`{"exp": 1796507674}`)
	login, end, err := NewChatGPT([]byte(authJSON(access)))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"auth_mode":"chatgpt","OPENAI_API_KEY":null,"tokens":{"id_token":"a.b.c","access_token":"` + access +
		`","refresh_token":"","account_id":"acc-1"},"last_refresh":"2026-11-01T00:00:00Z"}`
	if string(login) != want || end.Unix() != 1796507674 {
		t.Errorf("%s until %v", login, end)
	}
	files, err := Agent{Provider: Codex, Variables: map[string]string{ChatGPT: string(login)}}.Files()
	if err != nil {
		t.Fatal(err)
	}
	if f := find1(t, files, find1(t, files, "~/.codex/auth.json").Link); string(f.Data) != want || f.Mode != 0o400 || !strings.HasPrefix(f.Path, "/run/") {
		t.Errorf("%+v", f)
	}
}

// TestChatGPTGrantsWhatWasRead: of a key that is there twice, the last counts.
func TestChatGPTGrantsWhatWasRead(t *testing.T) {
	login := `{"auth_mode": "chatgpt", "OPENAI_API_KEY": "sk-precious", "more": "precious",
		"tokens": {"id_token": "i", "access_token": "a", "refresh_token": "precious", "refresh_token": ""}}`
	got, err := grantedChatGPT(login)
	if err != nil || strings.Contains(string(got), "precious") || !strings.Contains(string(got), `"access_token":"a"`) {
		t.Errorf("%s, %v", got, err)
	}
}

func TestChatGPTRefused(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":      "{sk-precious",
		"a key":        `{"auth_mode": "apikey", "OPENAI_API_KEY": "sk-precious"}`,
		"no tokens":    `{"auth_mode": "chatgpt"}`,
		"wrong kind":   `{"auth_mode": "chatgpt", "tokens": {"access_token": ["sk-precious"]}}`,
		"no end":       authJSON(token(`{}`)),
		"no token":     authJSON("sk-precious"),
		"no claims":    authJSON("a.sk-precious.c"),
		"a text's end": authJSON(token(`{"exp": "sk-precious"}`)),
	} {
		if _, _, err := NewChatGPT([]byte(text)); !errdefs.IsInvalidArgument(err) || strings.Contains(err.Error(), "precious") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := Agent{Provider: Codex, Variables: map[string]string{ChatGPT: authJSON("x")}}.Files()
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "carboy login codex --stdin") || strings.Contains(err.Error(), "precious") {
		t.Errorf("a refresh token: %v", err)
	}
}
