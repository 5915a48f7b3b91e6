// Command media is the media proxy as bench measures it: proxy.Server on a listener, with short links to files of an
// upstream, and the records of those links in SQLite. With -upstream it is what the proxy, and nginx beside it, fetch from.
//
//	media -upstream -listen 127.0.0.1:0
//	media -homeserver http://127.0.0.1:8080 -db bridge.db -links links.json [-cache DIR] -listen 127.0.0.1:0
//
// The upstream has a file of any size: .../bench/n4096 is the first 4096 bytes of the payload, .../bench/e4096 the same,
// encrypted. Its /count says how often it was asked for one.
package main
