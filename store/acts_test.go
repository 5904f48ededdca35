package store

import (
	"context"
	"fmt"
	"testing"
)

func TestActsKeepTheNewestAndFindThoseOfAnIncident(t *testing.T) {
	s, _, err := Open(Config{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.Do(context.Background(), func(tx *Tx) {
		for i := range keepActs + 5 {
			tx.AddAct(Act{What: "replay", Keys: []string{fmt.Sprint(i), "all"}, Count: i})
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.View(func(tx *Tx) {
		every := tx.Acts("")
		if len(every) != keepActs || every[0].Count != 5 || every[keepActs-1].Count != keepActs+4 {
			t.Errorf("%d acts are kept, from %+v", len(every), every[0])
		}
		for key, want := range map[string]int{"0": 0, "7": 1, "all": keepActs} {
			if list := tx.Acts(key); len(list) != want {
				t.Errorf("incident %s has %d acts, want %d", key, len(list), want)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}
