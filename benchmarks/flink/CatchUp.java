import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.time.Duration;
import java.time.Instant;
import java.util.Collections;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import java.util.stream.Stream;

import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.serialization.DeserializationSchema.InitializationContext;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericData;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericRecord;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.jdbc.JdbcConnectionOptions.JdbcConnectionOptionsBuilder;
import org.apache.flink.connector.jdbc.JdbcExecutionOptions;
import org.apache.flink.connector.jdbc.core.datastream.sink.JdbcSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.formats.avro.registry.confluent.ConfluentRegistryAvroDeserializationSchema;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.util.Collector;

/**
 * Every click of a topic as a row of ClickHouse, by Apache Flink: what a user would write with Flink's own parts, set to be fast. At least once:
 * a checkpoint keeps offsets once all rows before them have been written.
 *
 * <p>Each byte on stdin is one reading of the topic from its start to where it ends now; the end of stdin is the end. A reading after the first
 * finds the JVM warm: its code is compiled.
 */
public final class CatchUp {
    /** Columns of the table in its order: first the fields of the event, then where it lay. */
    private static final List<String> EVENT = List.of(
            "event_id", "occurred_at", "received_at", "user_id", "session_id", "device_id", "ip",
            "country", "user_agent", "page", "element", "item_id", "referrer", "campaign");
    private static final List<String> ORIGIN =
            List.of("_topic", "_partition", "_offset", "_n", "_epoch", "_appended_at");
    private static final List<String> COLUMNS =
            Stream.of(EVENT, ORIGIN).flatMap(List::stream).toList();
    private static final Set<String> TIMES = Set.of("occurred_at", "received_at", "_appended_at");
    private static final Kind[] KINDS = COLUMNS.stream().map(CatchUp::kind).toArray(Kind[]::new);

    /** Tried: 20,000 to 200,000. Fewer cost ClickHouse more, more cost the JVM what they save ClickHouse. */
    private static final int BATCH_ROWS = 100_000;
    /** Each of them writes the rows that are there: the more checkpoints, the smaller the batches. */
    private static final Duration CHECKPOINTS = Duration.ofSeconds(10);
    /** Tried: 1 and 2. Two cost a tenth more processor time, and are hardly faster on two cores. */
    private static final int PARALLELISM = 1;

    /** How a value of a row becomes a parameter of the statement. */
    private enum Kind {
        IDENTIFIER,
        TIME,
        PLAIN
    }

    private CatchUp() {}

    /** Arguments: brokers, topic, group, URL of the registry, JDBC URL of the database, whether to insert RowBinary. */
    public static void main(String[] args) throws Exception {
        while (System.in.read() >= 0) {
            read(args[0], args[1], args[2], args[3], rows(args[4], args[5]));
        }
    }

    private static void read(String brokers, String topic, String group, String registry, JdbcSink<Row> rows)
            throws Exception {
        KafkaSource<Row> clicks = KafkaSource.<Row>builder()
                .setBootstrapServers(brokers)
                .setTopics(topic)
                .setGroupId(group)
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setBounded(OffsetsInitializer.latest())
                .setDeserializer(new ClickRows(newestSchema(registry, topic), registry))
                .build();
        StreamExecutionEnvironment flink = environment();
        flink.fromSource(clicks, WatermarkStrategy.noWatermarks(), topic).sinkTo(rows);
        flink.execute();
    }

    /** A cluster within this JVM, which listens on loopback alone and tells of a failure instead of beginning again. */
    private static StreamExecutionEnvironment environment() {
        Configuration settings = new Configuration();
        for (String end : List.of("rest.bind-address", "jobmanager.bind-host", "taskmanager.bind-host")) {
            settings.setString(end, "127.0.0.1");
        }
        settings.setString("rest.port", "0");
        settings.setString("restart-strategy.type", "none");
        StreamExecutionEnvironment flink =
                StreamExecutionEnvironment.createLocalEnvironment(PARALLELISM, settings);
        flink.enableCheckpointing(CHECKPOINTS.toMillis(), CheckpointingMode.AT_LEAST_ONCE);
        flink.getConfig().enableObjectReuse();
        return flink;
    }

    /** Unless it is asked for RowBinary the driver sends each batch as text, which costs both sides more than a quarter more processor time. */
    private static JdbcSink<Row> rows(String url, String rowBinary) {
        String places = String.join(", ", Collections.nCopies(COLUMNS.size(), "?"));
        String insert = "INSERT INTO plain_clicks (" + String.join(", ", COLUMNS) + ") VALUES (" + places + ")";
        return JdbcSink.<Row>builder()
                .withQueryStatement(insert, CatchUp::bind)
                .withExecutionOptions(JdbcExecutionOptions.builder()
                        .withBatchSize(BATCH_ROWS)
                        .withBatchIntervalMs(0)
                        .build())
                .buildAtLeastOnce(new JdbcConnectionOptionsBuilder()
                        .withUrl(url)
                        .withDriverName("com.clickhouse.jdbc.ClickHouseDriver")
                        .withUsername("default")
                        .withPassword("")
                        .withProperty("beta.row_binary_for_simple_insert", rowBinary)
                        .build());
    }

    private static Kind kind(String column) {
        return column.equals("event_id") ? Kind.IDENTIFIER : TIMES.contains(column) ? Kind.TIME : Kind.PLAIN;
    }

    /** Sets the parameters of one row. */
    private static void bind(PreparedStatement statement, Row row) throws SQLException {
        for (int column = 0; column < KINDS.length; column++) {
            Object value = row.getField(column);
            statement.setObject(column + 1, switch (KINDS[column]) {
                case IDENTIFIER -> UUID.fromString((String) value);
                case TIME -> Instant.ofEpochMilli((Long) value);
                case PLAIN -> value;
            });
        }
    }

    /** The newest schema of a topic, which all older events are read as; its strings are Java's own. */
    private static Schema newestSchema(String registry, String topic) throws IOException {
        String url = registry + "/subjects/" + topic + "-value/versions/latest/schema";
        try (InputStream body = URI.create(url).toURL().openStream()) {
            Schema schema = new Schema.Parser().parse(body);
            schema.getFields().stream()
                    .map(Schema.Field::schema)
                    .flatMap(type -> type.isUnion() ? type.getTypes().stream() : Stream.of(type))
                    .filter(type -> type.getType() == Schema.Type.STRING)
                    .forEach(type -> GenericData.setStringType(type, GenericData.StringType.String));
            return schema;
        }
    }

    /** An event and where it lay as a row, fields in the order of the columns. */
    private static final class ClickRows implements KafkaRecordDeserializationSchema<Row> {
        private static final long serialVersionUID = 1;

        private final ConfluentRegistryAvroDeserializationSchema<GenericRecord> events;
        /** Where the event's columns are in its schema. */
        private final int[] positions;

        ClickRows(Schema schema, String registry) {
            events = ConfluentRegistryAvroDeserializationSchema.forGeneric(schema, registry);
            positions = EVENT.stream().mapToInt(field -> schema.getField(field).pos()).toArray();
        }

        @Override
        public void open(InitializationContext context) throws Exception {
            events.open(context);
        }

        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> message, Collector<Row> out)
                throws IOException {
            GenericRecord event = events.deserialize(message.value());
            Row row = Row.withPositions(COLUMNS.size());
            int column = 0;
            for (int position : positions) {
                row.setField(column++, event.get(position));
            }
            row.setField(column++, message.topic());
            row.setField(column++, message.partition());
            row.setField(column++, message.offset());
            row.setField(column++, 0);
            row.setField(column++, 1);
            row.setField(column, message.timestamp());
            out.collect(row);
        }

        @Override
        public TypeInformation<Row> getProducedType() {
            return Types.ROW(COLUMNS.stream()
                    .map(column -> switch (column) {
                        case "_partition", "_n", "_epoch" -> Types.INT;
                        case "_offset" -> Types.LONG;
                        default -> TIMES.contains(column) ? Types.LONG : Types.STRING;
                    })
                    .toArray(TypeInformation<?>[]::new));
        }
    }
}
