// Command peer is the appservice that bench/sink is measured beside: mautrix-go's own, with a handler that counts. It keeps
// nothing: what it has acknowledged and not handled is lost when it ends.
//
//	go run ./bench/peer -listen 127.0.0.1:9200 -hs-token T -mode async|sync
//
// GET /count on the same listener answers {"events":N}, the calls of the handler since the start.
package main
