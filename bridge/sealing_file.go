package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"maunium.net/go/mautrix/crypto/attachment"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// This file is how files from the network come to the homeserver: encrypted where their event will be. A file is uploaded long before its event leaves; whether the
// room is encrypted is decided anew then, for both: an event that is encrypted never points at a file that is not.

// upload puts a file on the homeserver before anything is stored: an upload that is repeated after a crash is another
// unused file, never another message. Where the bridge may say nothing, the file goes nowhere: its message becomes a dead letter, as any other.
func (b *Bridge) upload(ctx context.Context, p *portal, in *Incoming) (*event.MessageEventContent, error) {
	file := in.File
	content := &event.MessageEventContent{
		MsgType: msgTypeOf(file.MIME), Body: file.Name, FileName: file.Name,
		Info: &event.FileInfo{MimeType: file.MIME, Size: int(file.Size), Width: file.Width, Height: file.Height},
	}
	if file.Caption != "" {
		content.Body = file.Caption
	}
	err := b.guard.Check(ctx, p.Room)
	encrypted := isEncrypted(err)
	if err != nil && !encrypted {
		return nil, err
	}
	if encrypted && b.mode(p.Room) == modeOff {
		return content, nil
	}
	ghost := b.as.Ghost(b.ghostID(in.Sender))
	if err := ghost.EnsureRegistered(ctx); err != nil {
		return nil, err
	}
	if encrypted {
		content.File, err = uploadSealed(ctx, ghost, file.Content, file.Size)
	} else {
		var uri id.ContentURI
		uri, err = ghost.Upload(ctx, file.Content, file.Size, file.MIME, file.Name)
		content.URL = uri.CUString()
	}
	if err != nil {
		return nil, fmt.Errorf("uploading %q: %w", file.Name, err)
	}
	return content, nil
}

// uploadSealed encrypts a file on its way to the homeserver, which need not know its name and type.
func uploadSealed(ctx context.Context, sender *appservice.Intent, plain io.Reader, size int64) (*event.EncryptedFileInfo, error) {
	file := attachment.NewEncryptedFile()
	sealed := file.EncryptStream(struct{ io.Reader }{plain})
	uri, err := sender.Upload(ctx, struct{ io.Reader }{sealed}, size, "application/octet-stream", "")
	if err != nil {
		return nil, err
	}
	_ = sealed.Close() // computes the hash; there is nothing to close
	return &event.EncryptedFileInfo{EncryptedFile: *file, URL: uri.CUString()}, nil
}

var (
	errNoFile   = errors.New("its file was not kept: the room was encrypted, and the bridge took no part in encrypted rooms then. It has to be sent again on the network")
	errFileGone = errors.New("the room was encrypted after the file was uploaded, and the homeserver has it no more, so that it cannot be encrypted")
)

// sealFileOf sees to it that what is about to be encrypted points at no plain file: one that was uploaded before the room was encrypted is fetched from the homeserver and
// uploaded again, encrypted. The row has that before anything else happens, so that this is done once.
func (b *Bridge) sealFileOf(ctx context.Context, row *store.Outgoing, o *outgoing, sender id.UserID, content json.RawMessage) (json.RawMessage, error) {
	if o.Type != event.EventMessage.Type {
		return content, nil
	}
	var said struct {
		MsgType event.MessageType   `json:"msgtype"`
		URL     id.ContentURIString `json:"url"`
		File    json.RawMessage     `json:"file"`
	}
	if err := json.Unmarshal(content, &said); err != nil {
		return nil, appservice.Permanent(fmt.Errorf("reading a stored message: %w", err))
	}
	switch {
	case said.URL != "":
	case said.File == nil && said.MsgType.IsMedia():
		return nil, appservice.Permanent(errNoFile)
	default:
		return content, nil
	}
	file, err := b.sealUploaded(ctx, b.as.Ghost(sender), said.URL)
	if err != nil {
		return nil, err
	}
	stored := *o
	for _, part := range []*json.RawMessage{&stored.Content, &content} {
		if *part, err = pointAt(*part, file); err != nil {
			return nil, err
		}
	}
	payload := mustJSON(&stored)
	err = b.store.Commit(ctx, b.store.Epoch(), func(tx *store.Tx) error { return tx.OutgoingPayload(row.ID, payload) })
	if err != nil {
		return nil, fmt.Errorf("recording where the encrypted file is: %w", err)
	}
	o.Content, row.Payload = stored.Content, payload
	return content, nil
}

// sealUploaded puts an encrypted copy of an uploaded file beside it.
func (b *Bridge) sealUploaded(ctx context.Context, sender *appservice.Intent, plain id.ContentURIString) (*event.EncryptedFileInfo, error) {
	uri, err := plain.Parse()
	if err != nil {
		return nil, appservice.Permanent(fmt.Errorf("reading where the file is: %w", err))
	}
	resp, err := sender.Download(ctx, uri)
	if err != nil {
		if isPermanent(err) {
			err = fmt.Errorf("%w: %w", errFileGone, err)
		}
		return nil, fmt.Errorf("fetching the file to encrypt it: %w", err)
	}
	defer resp.Body.Close()
	file, err := uploadSealed(ctx, sender, resp.Body, resp.ContentLength)
	if err != nil {
		return nil, fmt.Errorf("uploading the file encrypted: %w", err)
	}
	return file, nil
}

// pointAt makes a message point at an encrypted file, and leaves the rest of it as it is.
func pointAt(content json.RawMessage, file *event.EncryptedFileInfo) (json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(content, &members); err != nil {
		return nil, appservice.Permanent(fmt.Errorf("reading a stored message: %w", err))
	}
	delete(members, "url")
	members["file"] = mustJSON(file)
	return mustJSON(members), nil
}
