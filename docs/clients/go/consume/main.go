// Print scores as JSON lines: go run ./consume BROKERS REGISTRY TOPIC GROUP [COUNT]
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
)

func main() {
	ctx, count, seen := context.Background(), math.MaxInt, 0
	if len(os.Args) > 5 {
		count = must(strconv.Atoi(os.Args[5]))
	}
	schemas, known := must(sr.NewClient(sr.URLs(os.Args[2]))), map[int]avro.Schema{}
	client := must(kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Args[1], ",")...),
		kgo.ConsumerGroup(os.Args[4]),
		kgo.ConsumeTopics(os.Args[3]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
	))
	defer client.Close()
	for seen < count {
		fetched := client.PollFetches(ctx)
		must(0, fetched.Err())
		for _, record := range fetched.Records() {
			id, value, err := new(sr.ConfluentHeader).DecodeID(record.Value)
			if _, there := known[id]; err == nil && !there { // the writer's schema, once each
				known[id] = must(avro.Parse(must(schemas.SchemaByID(ctx, id)).Schema))
			}
			var score map[string]any
			must(0, avro.Unmarshal(known[must(id, err)], value, &score))
			fmt.Println(string(must(json.Marshal(score))))
			seen++
		}
		// After the work: a score may be seen again, by its event_id, and is never missed.
		must(0, client.CommitUncommittedOffsets(ctx))
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
