// Print scores as JSON lines: node consume.mjs BROKERS REGISTRY TOPIC GROUP [COUNT]
import { SchemaRegistry } from '@kafkajs/confluent-schema-registry'
import { Kafka, logLevel } from 'kafkajs'

const [brokers, host, topic, groupId, count] = process.argv.slice(2)
const registry = new SchemaRegistry({ host })
const kafka = new Kafka({ brokers: brokers.split(','), logLevel: logLevel.ERROR })
const consumer = kafka.consumer({ groupId })
await consumer.connect()
await consumer.subscribe({ topics: [topic], fromBeginning: true })

let left = count ? Number(count) : Infinity
let done
const enough = new Promise((resolve) => (done = resolve))
await consumer.run({
  autoCommit: false,
  eachMessage: async ({ partition, message }) => {
    if (left <= 0) return
    const score = await registry.decode(message.value)
    console.log(JSON.stringify(score))
    // After the work: a score may be seen again, by its event_id, and is never missed.
    await consumer.commitOffsets([{ topic, partition, offset: (BigInt(message.offset) + 1n).toString() }])
    left -= 1
    if (left <= 0) done()
  },
})
await enough
await consumer.disconnect()
