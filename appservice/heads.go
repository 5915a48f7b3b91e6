package appservice

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/trestle-bridge/trestle/internal/lanes"
	"github.com/trestle-bridge/trestle/store"
)

// head is what is known of the first event of a lane that did not go well. Lanes that are well have none.
type head struct {
	attempts int
	doubt    bool      // what an earlier attempt was about to do may have been done
	nextAt   time.Time // not before, from before the start
	// crashes is how many processes in a row ended while it was under way; alone, in how many of these nothing else was.
	// Both were found at the start, and it was not tried since.
	crashes, alone int
}

func (h head) isCulprit() bool { return h.crashes >= maxCrashes || h.alone >= maxAlone }

type heads struct {
	mu    sync.Mutex
	lanes lanes.Map[head]
}

func (h *heads) get(lane string) head {
	h.mu.Lock()
	defer h.mu.Unlock()
	known, _ := h.lanes.Get(lane)
	return known
}

func (h *heads) set(lane string, to head) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if to == (head{}) {
		h.lanes.Delete(lane)
	} else {
		h.lanes.Set(lane, to)
	}
}

// packedRefs is how events wait in their lanes: in five bytes or so.
var packedRefs = lanes.Packing[store.Ref]{
	Append: func(b []byte, ref store.Ref) []byte {
		b = binary.AppendUvarint(b, uint64(ref.Seq))
		pos := uint64(ref.Pos) << 1
		if ref.Last {
			pos |= 1
		}
		return binary.AppendUvarint(b, pos)
	},
	Next: func(b []byte) (store.Ref, int) {
		seq, n := binary.Uvarint(b)
		pos, m := binary.Uvarint(b[n:])
		return store.Ref{Seq: int64(seq), Pos: uint32(pos >> 1), Last: pos&1 == 1}, n + m
	},
}
