import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Branched;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;

/**
 * The jobs on Kafka Streams, as its documentation has them: two threads, commits every 100 ms, state in RocksDB with a
 * changelog. Arguments: JOB BOOTSTRAP INPUT GROUP EXACTLY_ONCE CACHE STATE_FOLDER.
 */
public final class Job {
    private static final double THRESHOLD = 40.0;

    /** What the branch job reads of a ride. */
    @JsonIgnoreProperties(ignoreUnknown = true)
    public static final class Ride {
        public double total_amount;
    }

    private static final ObjectReader RIDES = new ObjectMapper().readerFor(Ride.class);

    private Job() {}

    public static void main(String[] args) {
        String job = args[0];
        String group = args[3];
        StreamsBuilder builder = new StreamsBuilder();
        KStream<byte[], byte[]> rides = builder.stream(args[2]);
        switch (job) {
            case "branch" -> rides.split()
                    .branch((key, value) -> isHigh(value), Branched.withConsumer(high -> high.to(group + "-high")))
                    .defaultBranch(Branched.withConsumer(low -> low.to(group + "-low")));
            case "count" -> rides.groupByKey()
                    .count()
                    .toStream()
                    .map((key, count) -> KeyValue.pair(key, result(count)))
                    .to(group + "-high");
            case "minutes" -> rides.groupByKey()
                    .windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofMinutes(1)))
                    .count()
                    .toStream()
                    .map((window, count) -> KeyValue.pair(
                            window.key(),
                            ("{\"count\":" + count + ",\"window_start\":" + window.window().start() + "}")
                                    .getBytes(StandardCharsets.UTF_8)))
                    .to(group + "-high", Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
            default -> throw new IllegalArgumentException(job);
        }
        KafkaStreams streams = new KafkaStreams(builder.build(), settings(args));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
        streams.start();
    }

    private static Properties settings(String[] args) {
        boolean exactlyOnce = Boolean.parseBoolean(args[4]);
        boolean cache = Boolean.parseBoolean(args[5]);
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[1]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, args[3]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, args[6]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        settings.put(
                StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
                exactlyOnce ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
        if (!cache) {
            settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        }
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        return settings;
    }

    private static boolean isHigh(byte[] ride) {
        try {
            return RIDES.<Ride>readValue(ride).total_amount >= THRESHOLD;
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static byte[] result(long count) {
        return ("{\"count\":" + count + "}").getBytes(StandardCharsets.UTF_8);
    }
}
