package appservice

import (
	"fmt"
	"slices"
	"testing"

	"github.com/trestle-bridge/trestle/store"
)

// come gives the transactions that are taken, in order, and how many were refused.
func come(g *gaps, transactions ...*store.Transaction) (taken []string, refused int) {
	for _, t := range transactions {
		if g.refuses(t) {
			refused++
			continue
		}
		g.took(t)
		taken = append(taken, t.ID)
	}
	return taken, refused
}

func numbered(id any, kinds ...store.Kind) *store.Transaction {
	t := &store.Transaction{ID: fmt.Sprint(id)}
	for _, kind := range append(kinds, store.KindPDU) {
		t.Elements = append(t.Elements, store.Element{Kind: kind})
	}
	return t
}

func TestGap_WhatIsMissingComesAfterARefusal_AllAreTakenInOrder(t *testing.T) {
	for name, of := range map[string]struct {
		ids     []any
		taken   []string
		refused int
	}{
		"kept back":                  {[]any{7, 9, 8, 9, 10}, []string{"7", "8", "9", "10"}, 1},
		"two kept back":              {[]any{7, 10, 8, 9, 10, 11}, []string{"7", "8", "9", "10", "11"}, 1},
		"again later":                {[]any{7, 9, 8, 9, 11, 10, 11}, []string{"7", "8", "9", "10", "11"}, 2},
		"what was refused is cut":    {[]any{7, 9, 10, 8, 9, 10, 11}, []string{"7", "8", "9", "10", "11"}, 2},
		"two are refused for others": {[]any{7, 9, 12, 9, 12, 14}, []string{"7", "9", "12", "14"}, 2},
		"the first of the process":   {[]any{7, 8, 9}, []string{"7", "8", "9"}, 0},
		"a repetition":               {[]any{7, 8, 7, 8, 9}, []string{"7", "8", "7", "8", "9"}, 0},
		"others count too":           {[]any{7, 9, 9, 12, 20, 22}, []string{"7", "9", "12", "20", "22"}, 1},
		"the count begins anew":      {[]any{700, 1, 2, 4, 3, 4}, []string{"700", "1", "2", "3", "4"}, 1},
		"numbers that are times":     {[]any{1700000000000, 1700000000900, 1700000002000}, []string{"1700000000000", "1700000000900", "1700000002000"}, 0},
		"names that are no numbers":  {[]any{"a1", "a3", "7", "x", "9"}, []string{"a1", "a3", "7", "x"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var all []*store.Transaction
			for _, id := range of.ids {
				all = append(all, numbered(id))
			}
			if taken, refused := come(&gaps{synapse: true}, all...); !slices.Equal(taken, of.taken) || refused != of.refused {
				t.Errorf("taken %v, %d refused; want %v, %d", taken, refused, of.taken, of.refused)
			}
		})
	}
}

// Synapse sends what has failed again with its events alone.
func TestGap_TransactionThatWouldNotComeAgainWhole_IsTakenAndTheNextIsRefused(t *testing.T) {
	lists := numbered(9)
	lists.ChangedUsers = []string{"@alice:hs.test"}
	for name, carrying := range map[string]*store.Transaction{
		"to-device": numbered(9, store.KindToDevice), "device lists": lists, "nothing": {ID: "9"},
		"a dead letter": {ID: "9", Dead: []store.DeadLetter{{}}},
	} {
		taken, refused := come(&gaps{synapse: true}, numbered(7), carrying, numbered(10), numbered(8), numbered(10), numbered(11))
		if want := []string{"7", "9", "8", "10", "11"}; !slices.Equal(taken, want) || refused != 1 {
			t.Errorf("%s: taken %v, %d refused; want %v, 1", name, taken, refused, want)
		}
	}
	// Of what was taken the answer may be lost.
	taken, refused := come(&gaps{synapse: true}, numbered(7), numbered(9, store.KindToDevice), numbered(9), numbered(10), numbered(8), numbered(10))
	if want := []string{"7", "9", "9", "8", "10"}; !slices.Equal(taken, want) || refused != 1 {
		t.Errorf("taken twice: taken %v, %d refused; want %v, 1", taken, refused, want)
	}
	taken, refused = come(&gaps{synapse: true}, numbered(7), numbered(9, store.KindKeyCounts), numbered(8), numbered(9))
	if want := []string{"7", "8", "9"}; !slices.Equal(taken, want) || refused != 1 {
		t.Errorf("key counts: taken %v, %d refused; want %v, 1", taken, refused, want)
	}
}

func TestGap_HomeserverIsNoSynapse_NothingIsRefused(t *testing.T) {
	if taken, refused := come(&gaps{}, numbered(7), numbered(9)); len(taken) != 2 || refused != 0 {
		t.Errorf("taken %v, %d refused", taken, refused)
	}
}

// What it is must be known at once: what Synapse keeps back it does in the first seconds of a process.
func TestGap_NextProcess_KnowsFromTheStartThatItIsASynapse(t *testing.T) {
	for name, of := range map[string]struct {
		change func(*ages)
		want   bool
	}{
		"federation": {func(a *ages) { a.server = "nginx" }, true},
		"header":     {func(a *ages) { a.federation, a.server = "", "Synapse/1.160.0" }, true},
		"neither":    {func(a *ages) { a.federation, a.server = "", "nginx" }, false},
		"another":    {func(a *ages) { a.federation = `{"server":{"name":"Dendrite","version":"0.15"}}` }, false},
	} {
		t.Run(name, func(t *testing.T) {
			hs := newAges(t)
			hs.become(func(a *ages) { a.can = true; of.change(a) })
			f := newFixture(t, hs)
			if _, err := f.send(ghostA, "1"); err != nil {
				t.Fatal(err)
			}
			if f.as.gaps.synapse != of.want {
				t.Errorf("the process that asked takes it for a Synapse: %v", f.as.gaps.synapse)
			}
			f.crash()
			if f.as.gaps.synapse != of.want {
				t.Errorf("the next process takes it for a Synapse: %v", f.as.gaps.synapse)
			}
		})
	}
}
