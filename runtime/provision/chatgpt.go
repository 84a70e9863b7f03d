package provision

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// ChatGPT is the variable with a login of a ChatGPT account: what Codex keeps in
// its auth.json, without the token that makes new ones.
const ChatGPT = "CODEX_AUTH_JSON"

// chatGPT is auth.json as Codex 0.169.0 writes and reads it. Of the tokens, access
// is good for some days; refresh is worth the account for as long as it lives, and
// its first use by an agent would log Codex out elsewhere. Codex wants the key.
type chatGPT struct {
	Mode   string  `json:"auth_mode"`
	Key    *string `json:"OPENAI_API_KEY"`
	Tokens struct {
		ID      string `json:"id_token"`
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		Account string `json:"account_id,omitempty"`
	} `json:"tokens"`
	Refreshed string `json:"last_refresh,omitempty"`
}

// NewChatGPT takes from Codex's auth.json what agents may have, and tells until
// when it is good. Errors are errdefs.ErrInvalidArgument, with nothing of it.
func NewChatGPT(auth []byte) (login []byte, end time.Time, err error) {
	l, err := readChatGPT(auth)
	if err != nil {
		return nil, end, err
	}
	if end, err = expiry(l.Tokens.Access); err != nil {
		return nil, end, err
	}
	l.Key, l.Tokens.Refresh = nil, ""
	login, err = json.Marshal(l)
	return login, end, err
}

func readChatGPT(auth []byte) (l chatGPT, err error) {
	if json.Unmarshal(auth, &l) != nil { // whose error may quote a token
		return l, invalid("that is not Codex's auth.json")
	}
	if l.Mode != "chatgpt" || l.Tokens.Access == "" || l.Tokens.ID == "" {
		return l, invalid("that auth.json has no login of a ChatGPT account: log Codex in (`codex login`), or give an API key itself")
	}
	return l, nil
}

// expiry is that of a JSON Web Token (RFC 7519), whose signature is its issuer's
// affair.
func expiry(token string) (end time.Time, err error) {
	parts := strings.Split(token, ".")
	var claims struct {
		Expires float64 `json:"exp"` // seconds since 1970
	}
	if len(parts) == 3 { //nolint:mnd // header, claims, signature
		text, decodeErr := base64.RawURLEncoding.DecodeString(parts[1])
		if decodeErr == nil && json.Unmarshal(text, &claims) == nil && claims.Expires > 0 {
			return time.Unix(int64(claims.Expires), 0), nil
		}
	}
	return end, invalid("that auth.json has an access token that does not say how long it is good")
}

// grantedChatGPT refuses what an agent is not to have, and gives it no more than
// was read: a key may be there twice.
func grantedChatGPT(login string) ([]byte, error) {
	l, err := readChatGPT([]byte(login))
	if err != nil {
		return nil, invalid("%s: %w", ChatGPT, err)
	}
	if l.Tokens.Refresh != "" {
		return nil, invalid("%s has a refresh token, which no agent is to have: store it by `carboy login codex --stdin`, which leaves that out", ChatGPT)
	}
	l.Key = nil
	return json.Marshal(l)
}
