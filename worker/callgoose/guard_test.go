package callgoose

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// Who may not send any more writes nothing, also on a connection that is open.
func TestNothingIsWrittenThatMayNotBe(t *testing.T) {
	t.Parallel()
	var may atomic.Bool
	var came atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { came.Add(1) }))
	defer srv.Close()
	c, err := New(Config{URL: srv.URL, Token: func() string { return "t" }, MayWrite: may.Load})
	if err != nil {
		t.Fatal(err)
	}
	may.Store(true)
	if _, err := c.Send(t.Context(), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	may.Store(false)
	for range 2 { // on the open connection, and on a new one
		if _, err := c.Send(t.Context(), []byte("{}")); err == nil {
			t.Error("it was sent")
		}
	}
	if n := came.Load(); n != 1 {
		t.Errorf("%d requests came", n)
	}
}
