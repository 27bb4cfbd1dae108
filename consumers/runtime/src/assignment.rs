//! What a member of a consumer group was assigned, in the bytes of Kafka's consumer protocol: version, then topics, each with its partitions; all numbers big-endian.

/// The partitions of an assignment, by topic and number; None: not of this form.
pub fn partitions(assignment: &[u8]) -> Option<Vec<(String, i32)>> {
    let mut bytes = Bytes(assignment);
    let mut partitions = Vec::new();
    bytes.take(2)?;
    for _ in 0..bytes.number(4)? {
        let length = bytes.number(2)?;
        let topic = std::str::from_utf8(bytes.take(length)?).ok()?;
        for _ in 0..bytes.number(4)? {
            partitions.push((topic.to_owned(), i32::try_from(bytes.number(4)?).ok()?));
        }
    }
    Some(partitions)
}

/// Big-endian numbers and texts, one after the other.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, length: usize) -> Option<usize> {
        let bytes = self.take(length)?;
        Some(
            bytes
                .iter()
                .fold(0, |number, byte| number << 8 | usize::from(*byte)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(topics: &[(&str, &[i32])]) -> Vec<u8> {
        let mut bytes = vec![0, 3];
        bytes.extend((topics.len() as u32).to_be_bytes());
        for (topic, partitions) in topics {
            bytes.extend((topic.len() as u16).to_be_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend((partitions.len() as u32).to_be_bytes());
            for partition in *partitions {
                bytes.extend(partition.to_be_bytes());
            }
        }
        // No user data.
        bytes.extend((-1_i32).to_be_bytes());
        bytes
    }

    #[test]
    fn an_assignment_names_its_topics_and_partitions() {
        let bytes = written(&[("a", &[0, 3]), ("b.c", &[]), ("d", &[1])]);
        let expected = [("a", 0), ("a", 3), ("d", 1)];
        let expected = expected.map(|(topic, partition)| (topic.to_owned(), partition));
        assert_eq!(partitions(&bytes), Some(expected.to_vec()));
        assert_eq!(partitions(&written(&[])), Some(Vec::new()));
        assert_eq!(partitions(&bytes[..12]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = partitions(&bytes);
        }
    }
}
