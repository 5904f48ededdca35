package admin

// NATS are the external servers that keep what was accepted.
type NATS struct {
	Connected bool     `json:"connected"`
	Server    string   `json:"server"` // that this is connected to
	Version   string   `json:"version"`
	Replicas  int      `json:"replicas"` // asked for
	Sync      string   `json:"sync"`     // always, interval, unknown
	Streams   []Stream `json:"streams"`
}

// Stream is a stream as the servers keep it. Current counts the replicas that hold
// all of it.
type Stream struct {
	Name     string `json:"name"`
	Leader   string `json:"leader"`
	Replicas int    `json:"replicas"`
	Current  int    `json:"current"`
	Bytes    uint64 `json:"bytes"`
}
