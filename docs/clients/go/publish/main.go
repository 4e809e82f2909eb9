// Publish a view of an item by each user: go run ./publish BROKERS REGISTRY TOPIC click.avsc USER...
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
)

func main() {
	brokers, registry, topic, users := os.Args[1], os.Args[2], os.Args[3], os.Args[5:]
	ctx := context.Background()
	text := must(os.ReadFile(os.Args[4]))
	schema := must(avro.Parse(string(text)))
	schemas := must(sr.NewClient(sr.URLs(registry)))
	known := must(schemas.CreateSchema(ctx, topic+"-value", sr.Schema{Schema: string(text)}))
	// franz-go partitions keys by murmur2, as Java clients and Headrace do, and is idempotent with acks=all.
	client := must(kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...)))
	defer client.Close()

	var records []*kgo.Record
	for _, user := range users {
		click := map[string]any{
			"event_id":   uuid.NewString(), // a repeat under the same id counts once
			"event_time": time.Now(),
			"user_id":    user,
			"action":     "view",
			"item_id":    map[string]any{"string": "item-1"},
			"attributes": map[string]any{},
		}
		header := must(new(sr.ConfluentHeader).AppendEncode(nil, known.ID, nil))
		value := append(header, must(avro.Marshal(schema, click))...)
		records = append(records, &kgo.Record{Topic: topic, Key: []byte(user), Value: value})
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("published", len(records))
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
