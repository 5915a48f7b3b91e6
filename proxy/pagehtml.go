package proxy

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// pageStyle is all that makes a page look like something. The policy of the page names it by its hash: no other style counts.
const pageStyle = `
:root{color-scheme:light dark}
body{margin:0 auto;padding:1rem;max-width:46rem;font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{margin:0 0 .75rem;font-size:1.1rem}
.text{margin:0;white-space:pre-wrap;unicode-bidi:plaintext}
.files{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(18rem,100%),1fr));gap:1rem;margin:1rem 0 0;padding:0;list-style:none}
figure{margin:0}
img{display:block;width:100%;height:auto;border-radius:.4rem;background:#8882}
figcaption,footer{font-size:.85rem;opacity:.75}
footer{margin-top:1.25rem;padding-top:.5rem;border-top:1px solid #8886}
`

// pagePolicy lets a page have its style and pictures of its own host, and nothing else: no script, no frame, no form, nobody else's anything.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "sandbox allow-downloads; default-src 'none'; img-src 'self' data:; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

var pageTemplate = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex, nofollow, noarchive">
<title>{{.Title}}</title>
<meta property="og:type" content="article">
<meta property="og:title" content="{{.Title}}">
{{with .Excerpt}}<meta property="og:description" content="{{.}}">
{{end}}{{with .Address}}<meta property="og:url" content="{{.}}">
{{end}}{{with .Picture}}<meta property="og:image" content="{{.}}">
{{end}}<link rel="icon" href="data:,">
<style>{{.Style}}</style>
</head>
<body>
<h1><bdi>{{.Author}}</bdi></h1>
{{with .Text}}<div class="text" dir="auto" lang="">{{.}}</div>
{{end}}{{with .Files}}<ul class="files">
{{range .}}<li><figure>{{if .Small}}<a href="{{.Link}}"><img src="{{.Small}}" srcset="{{.Small}} 320w, {{.Large}} 800w" sizes="(max-width: 40rem) 100vw, 22rem"{{if .Width}} width="{{.Width}}" height="{{.Height}}"{{end}} loading="lazy" alt="{{.Name}}"></a>
<figcaption><bdi>{{.Name}}</bdi>{{with .Facts}} ({{.}}){{end}}</figcaption>{{else}}<figcaption><a href="{{.Link}}"><bdi>{{.Name}}</bdi></a>{{with .Facts}} ({{.}}){{end}}</figcaption>{{end}}</figure></li>
{{end}}</ul>
{{end}}<footer>{{.Footer}}</footer>
</body>
</html>
`))

// pageView is a page as a reader sees it.
type pageView struct {
	Title, Author, Text, Excerpt string
	Address, Picture             string // absolute, for previews; "": not known
	Files                        []fileView
	Footer                       string
	Style                        template.CSS
}

type fileView struct {
	Link, Small, Large string // Small and Large of pictures only
	Name, Facts        string
	Width, Height      int
	absolute           string
}

const excerptLength = 200 // characters

// excerpt is the beginning of a text in one line.
func excerpt(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if utf8.RuneCountInString(text) <= excerptLength {
		return text
	}
	return string([]rune(text)[:excerptLength-1]) + "…"
}

// footer says when it was written, and until when it is here.
func footer(written, expires time.Time, edited bool) string {
	const day = "2 January 2006"
	said := written.UTC().Format(day + ", 15:04 MST")
	if edited {
		said = "edited " + said
	}
	if expires.IsZero() {
		return said
	}
	return said + " · here until " + expires.UTC().Format(day)
}

// facts says how large a file is.
func (f *pageFile) facts() string {
	var facts []string
	if f.Size > 0 {
		facts = append(facts, bytesInWords(f.Size))
	}
	if f.Width > 0 && f.Height > 0 {
		facts = append(facts, fmt.Sprintf("%d×%d", f.Width, f.Height))
	}
	return strings.Join(facts, ", ")
}

// bytesInWords writes a number of bytes in powers of 1000, as the line on the network does.
func bytesInWords(n int64) string {
	value, unit := float64(n), 0
	for value >= 999.95 && unit < 4 {
		value, unit = value/1000, unit+1
	}
	if unit == 0 || value >= 99.95 {
		return fmt.Sprintf("%.0f %s", value, []string{"B", "kB", "MB", "GB", "TB"}[unit])
	}
	return fmt.Sprintf("%.1f %s", value, []string{"B", "kB", "MB", "GB", "TB"}[unit])
}

func (v *pageView) html(w io.Writer) error {
	v.Style = pageStyle
	return pageTemplate.Execute(w, v)
}

// plain is the page for whoever does not ask for HTML: the text, and under it the files.
func (v *pageView) plain(w io.Writer) error {
	var b strings.Builder
	if v.Text != "" {
		b.WriteString(v.Text + "\n")
	}
	for _, f := range v.Files {
		b.WriteString(f.Name)
		if f.Facts != "" {
			b.WriteString(" (" + f.Facts + ")")
		}
		b.WriteString(": " + f.absolute + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
