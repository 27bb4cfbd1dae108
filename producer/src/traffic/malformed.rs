//! Bytes that are no events, made from good ones: what a broken or foreign producer would write.
//!
//! Seeded like the rest of the traffic. None of them decodes: a property test holds it.

use super::random::Random;
use activity_schemas::codec::{FRAMING_BYTES, MAGIC};

/// Schema ids from here on are given to nobody by a registry that counts up.
const FOREIGN_SCHEMA_ID: u32 = 0x7fff_0000;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Defect {
    /// Does not begin with the zero byte.
    WrongMagic,
    /// Names a schema that no registry knows.
    UnknownSchema,
    /// Ends too early.
    Truncated,
    /// Goes on after its end.
    Trailing,
    /// Bytes of any kind, which do not begin with the zero byte either.
    Random,
}

impl Defect {
    /// All of them.
    pub const ALL: [Defect; 5] = [
        Defect::WrongMagic,
        Defect::UnknownSchema,
        Defect::Truncated,
        Defect::Trailing,
        Defect::Random,
    ];
}

/// Makes malformed messages, each defect in its turn.
pub struct Malformed {
    random: Random,
    turn: usize,
}

/// Malformed messages of this seed.
pub fn malformed(seed: u64) -> Malformed {
    Malformed {
        random: Random::new(seed, 2),
        turn: 0,
    }
}

impl Malformed {
    /// Puts the next one into `into`, made from `good`: a whole message in the wire format.
    pub fn next_from(&mut self, good: &[u8], into: &mut Vec<u8>) -> Defect {
        let defect = Defect::ALL[self.turn % Defect::ALL.len()];
        self.turn += 1;
        into.clear();
        into.extend_from_slice(good);
        match defect {
            Defect::WrongMagic => into[0] = self.not_magic(),
            Defect::UnknownSchema => {
                let id = FOREIGN_SCHEMA_ID + self.random.below(1 << 16);
                into[1..FRAMING_BYTES].copy_from_slice(&id.to_be_bytes());
            }
            Defect::Truncated => {
                let datum = good.len().saturating_sub(FRAMING_BYTES) as u32;
                into.truncate(FRAMING_BYTES + self.random.below(datum) as usize);
            }
            Defect::Trailing => self.append(16, into),
            Defect::Random => {
                into.clear();
                into.push(self.not_magic());
                self.append(200, into);
            }
        }
        defect
    }

    fn not_magic(&mut self) -> u8 {
        MAGIC + 1 + self.random.below(255) as u8
    }

    fn append(&mut self, bytes_max: u32, into: &mut Vec<u8>) {
        let count = 1 + self.random.below(bytes_max);
        into.extend((0..count).map(|_| self.random.below(256) as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use activity_schemas::{Decoders, Encoder, EventKind, avro};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_malformed_message_decodes(seed: u64) {
            let mut traffic = crate::traffic::Traffic::new(seed, Default::default());
            let mut malformed = malformed(seed);
            for _ in 0..40 {
                let outgoing = traffic.next_event();
                let kind = match outgoing.event {
                    activity_schemas::Event::Click(_) => EventKind::Click,
                    activity_schemas::Event::Watch(_) => EventKind::Watch,
                };
                let (mut good, mut bad) = (Vec::new(), Vec::new());
                crate::encode::encode(&Encoder::new(kind, 9), &outgoing.event, &mut good).unwrap();
                let defect = malformed.next_from(&good, &mut bad);
                let mut decoders = Decoders::new(kind);
                decoders.add(9, avro::newest(kind).json);
                prop_assert!(decoders.decode(&good).is_ok());
                prop_assert!(decoders.decode(&bad).is_err(), "{defect:?}");
            }
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_bytes_and_every_defect_has_its_turn() {
        let good = [0, 0, 0, 0, 1, 7, 7, 7, 7];
        let run = || {
            let mut malformed = malformed(4);
            (0..10)
                .map(|_| {
                    let mut bytes = Vec::new();
                    (malformed.next_from(&good, &mut bytes), bytes)
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
        for defect in Defect::ALL {
            assert_eq!(run().iter().filter(|made| made.0 == defect).count(), 2);
        }
    }
}
