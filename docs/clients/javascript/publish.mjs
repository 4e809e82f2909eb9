// Publish a view of an item by each user: node publish.mjs BROKERS REGISTRY TOPIC click.avsc USER...
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { SchemaRegistry, SchemaType } from '@kafkajs/confluent-schema-registry'
import { Kafka, logLevel, Partitioners } from 'kafkajs'

const [brokers, host, topic, file, ...users] = process.argv.slice(2)
const registry = new SchemaRegistry({ host })
const contract = { type: SchemaType.AVRO, schema: readFileSync(file, 'utf8') }
const { id } = await registry.register(contract, { subject: `${topic}-value` })

const kafka = new Kafka({ brokers: brokers.split(','), logLevel: logLevel.ERROR })
// KafkaJS 2's default is murmur2, as Java clients and Headrace have it; its LegacyPartitioner is not.
const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, idempotent: true })
await producer.connect()
const messages = await Promise.all(
  users.map(async (user) => {
    const click = {
      event_id: randomUUID(), // a repeat under the same id counts once
      event_time: Date.now(),
      user_id: user,
      action: 'view',
      item_id: 'item-1',
      attributes: {},
    }
    return { key: user, value: await registry.encode(id, click) }
  }),
)
await producer.send({ topic, messages, acks: -1 }) // throws what was not taken
await producer.disconnect()
console.log(`published ${messages.length}`)
