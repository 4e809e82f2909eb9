// Print scores as JSON lines: java -cp JARS Consume.java BROKERS REGISTRY TOPIC GROUP [COUNT]
import com.fasterxml.jackson.databind.ObjectMapper;
import java.net.URI;
import java.net.http.*;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.*;
import org.apache.avro.Schema;
import org.apache.avro.generic.*;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.serialization.*;

class Consume {
    static final Map<Integer, Schema> SCHEMAS = new HashMap<>();

    public static void main(String[] args) throws Exception {
        Properties conf = new Properties();
        conf.put("bootstrap.servers", args[0]);
        conf.put("group.id", args[3]);
        conf.put("auto.offset.reset", "earliest");
        conf.put("enable.auto.commit", "false");
        long left = args.length > 4 ? Long.parseLong(args[4]) : Long.MAX_VALUE;
        try (var consumer = new KafkaConsumer<>(conf, new StringDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(args[2]));
            while (left > 0) {
                var messages = consumer.poll(Duration.ofSeconds(1));
                for (var message : messages) System.out.println(decode(args[1], message.value()));
                left -= messages.count();
                consumer.commitSync(); // after the work: a score may be seen again, and is never missed
            }
        }
    }

    /** Confluent's framing: 0, the writer's schema id in four bytes, Avro. A record prints as JSON. */
    static GenericRecord decode(String registry, byte[] value) throws Exception {
        ByteBuffer bytes = ByteBuffer.wrap(value);
        if (bytes.get() != 0) throw new IllegalArgumentException("no Confluent framing");
        int id = bytes.getInt();
        if (!SCHEMAS.containsKey(id)) SCHEMAS.put(id, fetch(registry, id));
        var decoder = DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, null);
        return new GenericDatumReader<GenericRecord>(SCHEMAS.get(id)).read(null, decoder);
    }

    static Schema fetch(String registry, int id) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(registry + "/schemas/ids/" + id)).build();
        String answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body();
        return new Schema.Parser().parse(new ObjectMapper().readTree(answer).get("schema").asText());
    }
}
