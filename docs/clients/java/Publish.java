// Publish a view of an item by each user: java -cp JARS Publish.java BROKERS REGISTRY TOPIC click.avsc USER...
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.http.*;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.*;
import java.util.concurrent.Future;
import org.apache.avro.Schema;
import org.apache.avro.generic.*;
import org.apache.avro.io.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.*;

class Publish {
    static final ObjectMapper JSON = new ObjectMapper();
    public static void main(String[] args) throws Exception {
        String topic = args[2];
        Schema schema = new Schema.Parser().parse(Path.of(args[3]).toFile());
        int id = register(args[1], topic + "-value", schema);
        Properties conf = new Properties(); // Kafka's own client partitions keys by murmur2, as Headrace does
        conf.put("bootstrap.servers", args[0]);
        conf.put("acks", "all");
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = new KafkaProducer<>(conf, new StringSerializer(), new ByteArraySerializer())) {
            for (String user : Arrays.asList(args).subList(4, args.length)) {
                GenericRecord click = new GenericRecordBuilder(schema)
                    .set("event_id", UUID.randomUUID().toString()) // a repeat under the same id counts once
                    .set("event_time", System.currentTimeMillis())
                    .set("user_id", user)
                    .set("action", new GenericData.EnumSymbol(schema.getField("action").schema(), "view"))
                    .set("item_id", "item-1").build();
                sent.add(producer.send(new ProducerRecord<>(topic, user, encode(id, click))));
            }
        }
        for (Future<RecordMetadata> each : sent) each.get(); // throws what was not taken
        System.out.println("published " + sent.size());
    }

    /** Confluent's framing: 0, the schema's id in four bytes, Avro. */
    static byte[] encode(int id, GenericRecord record) throws Exception {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        bytes.write(ByteBuffer.allocate(5).put((byte) 0).putInt(id).array());
        BinaryEncoder encoder = EncoderFactory.get().binaryEncoder(bytes, null);
        new GenericDatumWriter<GenericRecord>(record.getSchema()).write(record, encoder);
        encoder.flush();
        return bytes.toByteArray();
    }

    static int register(String registry, String subject, Schema schema) throws Exception {
        String body = JSON.writeValueAsString(Map.of("schema", schema.toString()));
        var request = HttpRequest.newBuilder(URI.create(registry + "/subjects/" + subject + "/versions"))
            .header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body)).build();
        var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) throw new IllegalStateException(answer.body());
        return JSON.readTree(answer.body()).get("id").asInt();
    }
}
