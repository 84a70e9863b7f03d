package changes

import (
	"slices"
	"strings"
)

// harmless is what git keeps in a repository and never takes as a command or a
// place to look for one.
var harmless = []string{
	"objects", "refs", "logs", "HEAD", "index", "packed-refs", "shallow", "ORIG_HEAD", "FETCH_HEAD", "COMMIT_EDITMSG",
	"MERGE_HEAD", "MERGE_MSG", "MERGE_MODE", "AUTO_MERGE", "CHERRY_PICK_HEAD", "REVERT_HEAD", "SQUASH_MSG",
}

// withheld is what an apply leaves out: hooks and settings with which git would
// run what the agent wrote, and what is no file, directory or link.
func withheld(c Change) bool {
	if c.Type == "special" {
		return true
	}
	parts := strings.Split(c.Path, "/")
	at := slices.IndexFunc(parts, func(p string) bool { return strings.EqualFold(p, ".git") })
	switch {
	case at < 0:
		return false
	case at == len(parts)-1: // a file or a link that leads to a repository, or a directory
		return c.Type != "directory"
	default:
		return !slices.Contains(harmless, parts[at+1])
	}
}

// commanding is what other programs take commands from, in any directory. It is
// part of projects, and written when its user agrees.
var commanding = []string{
	".envrc", ".mcp.json", ".claude", ".codex", ".agents", ".cursor", ".gemini", ".vscode", ".idea", ".husky", ".carboy",
}

// Commands says that programs of the host may run what this change says.
func (c Change) Commands() bool {
	return slices.ContainsFunc(strings.Split(strings.ToLower(c.Path), "/"), func(part string) bool { return slices.Contains(commanding, part) })
}
