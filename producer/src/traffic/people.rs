//! Who is there: what is fixed about a user (country, devices, addresses, taste, whether an attacker) is computed from seed and number.
//!
//! Nothing of it is stored, so that a million users cost no more memory than their few mutable facts.

use super::{
    attack::Attack,
    catalogue::{Catalogue, GENRES, STYLES},
    random::{Random, mix},
};

/// ISO code, first octet of its addresses, weight.
const COUNTRIES: [(&str, u8, u64); 12] = [
    ("US", 24, 26),
    ("DE", 91, 14),
    ("BR", 177, 10),
    ("IN", 117, 10),
    ("GB", 86, 8),
    ("FR", 90, 8),
    ("JP", 126, 7),
    ("PL", 83, 5),
    ("MX", 189, 4),
    ("ES", 88, 3),
    ("SE", 81, 3),
    ("NL", 77, 2),
];

const USER_AGENTS: [&str; 8] = [
    "Mozilla/5.0 (Linux; Android 16; Pixel 10) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.1 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.0 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (SMART-TV; Linux; Tizen 9.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 TV Safari/537.36",
    "Mozilla/5.0 (iPad; CPU OS 19_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.1 Mobile/15E148 Safari/604.1",
];

/// Of a thousand users, how many have a device in a carrier's network, whose few addresses many users share.
const SHARED_ADDRESS_PER_THOUSAND: u64 = 250;

/// Of a thousand choices of a title, how many stay within the user's style.
const STYLE_PER_THOUSAND: u32 = 600;

/// What a user likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taste {
    favourite: u8,
    second: u8,
    style: u8,
}

impl Taste {
    /// The genre that this user looks for next.
    pub(crate) fn genre(self, catalogue: &Catalogue, random: &mut Random) -> u8 {
        match random.below(100) {
            0..60 => self.favourite,
            60..83 => self.second,
            _ => catalogue.any_genre(random),
        }
    }

    /// The title that this user finds next: mostly of a genre of theirs, and there mostly of their style.
    pub(crate) fn title(self, catalogue: &Catalogue, random: &mut Random) -> u32 {
        let genre = self.genre(catalogue, random);
        if random.chance(STYLE_PER_THOUSAND) {
            catalogue.any_title_of_style(genre, self.style, random)
        } else {
            catalogue.any_title(genre, random)
        }
    }

    /// Of a thousand playbacks, how many are seen to the end: taste decides, length matters a little.
    pub(crate) fn completes_per_thousand(self, title: u32, duration_ms: i64) -> u32 {
        let genre = Catalogue::genre(title);
        let liked = if genre == self.favourite {
            800
        } else if genre == self.second {
            600
        } else {
            220
        };
        let style = if Catalogue::style(title) == self.style {
            80
        } else {
            0
        };
        let long = if duration_ms > 45 * 60_000 { 150 } else { 0 };
        liked + style - long
    }
}

/// What is fixed about a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    bits: u64,
    number: u32,
    pub(crate) taste: Taste,
    pub(crate) attack: Option<Attack>,
}

impl Person {
    /// User `number` of the world that `seed` makes. `attackers_per_million` of the users attack.
    pub(crate) fn new(seed: u64, number: u32, attackers_per_million: u32) -> Self {
        let bits = mix(mix(seed) ^ u64::from(number));
        let taste_bits = mix(bits ^ 1);
        let favourite = (taste_bits % GENRES.len() as u64) as u8;
        let step = 1 + (taste_bits >> 32) as u8 % (GENRES.len() as u8 - 1);
        let roll = mix(bits ^ 2);
        let attacks = roll % 1_000_000 < u64::from(attackers_per_million);
        Self {
            bits,
            number,
            taste: Taste {
                favourite,
                second: (favourite + step) % GENRES.len() as u8,
                style: (taste_bits >> 48) as u8 % STYLES as u8,
            },
            attack: attacks.then(|| Attack::of(roll >> 32)),
        }
    }

    fn country_row(self) -> (&'static str, u8, u64) {
        let mut roll = (self.bits >> 8) % 100;
        for row in COUNTRIES {
            if roll < row.2 {
                return row;
            }
            roll -= row.2;
        }
        COUNTRIES[0]
    }

    /// ISO 3166-1 alpha-2.
    pub(crate) fn country(self) -> &'static str {
        self.country_row().0
    }

    /// How many devices: one to three.
    pub(crate) fn devices(self) -> u32 {
        match self.bits % 10 {
            0..5 => 1,
            5..8 => 2,
            _ => 3,
        }
    }

    fn device_bits(self, device: u32) -> u64 {
        mix(self.bits ^ (u64::from(device) << 40))
    }

    /// The browser on one of the devices.
    pub(crate) fn user_agent(self, device: u32) -> &'static str {
        USER_AGENTS[(self.device_bits(device) >> 20) as usize % USER_AGENTS.len()]
    }

    /// Writes `u0000017`.
    pub(crate) fn write_user_id(self, into: &mut String) {
        into.clear();
        into.push('u');
        push_decimal(into, u64::from(self.number), 7);
    }

    /// Writes the id of one of the devices.
    pub(crate) fn write_device_id(self, device: u32, into: &mut String) {
        let bits = match self.attack {
            // A farm runs many accounts on few devices.
            Some(_) => mix(self.bits % 16),
            None => self.device_bits(device),
        };
        write_hex_id('d', bits, into);
    }

    /// Writes the address that a device has: at home, in a carrier's network, or in a data centre.
    pub(crate) fn write_ip(self, device: u32, into: &mut String) {
        let (_, octet, _) = self.country_row();
        let bits = self.device_bits(device);
        let octets = if self.attack.is_some() {
            [193, 42, 7, (self.bits % 24) as u8]
        } else if device > 0 && bits % 1000 < SHARED_ADDRESS_PER_THOUSAND {
            [octet, 255, 0, (bits >> 32) as u8]
        } else {
            // All devices at home share the home's address.
            let home = mix(self.bits ^ 3).to_le_bytes();
            [octet, home[0] % 255, home[1], home[2]]
        };
        into.clear();
        for (index, octet) in octets.into_iter().enumerate() {
            if index > 0 {
                into.push('.');
            }
            push_decimal(into, u64::from(octet), 1);
        }
    }
}

/// Appends a number with at least so many digits.
fn push_decimal(into: &mut String, number: u64, digits_min: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    let mut rest = number;
    while rest > 0 || digits.len() - at < digits_min {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    into.extend(digits[at..].iter().map(|&digit| char::from(digit)));
}

/// Writes a letter and 16 hexadecimal digits.
pub(crate) fn write_hex_id(prefix: char, bits: u64, into: &mut String) {
    into.clear();
    into.push(prefix);
    into.extend((0..16).map(|digit| {
        let nibble = (bits >> (60 - 4 * digit)) as u8 & 15;
        char::from(b"0123456789abcdef"[usize::from(nibble)])
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn country_weights_make_a_hundred() {
        assert_eq!(COUNTRIES.iter().map(|row| row.2).sum::<u64>(), 100);
    }

    #[test]
    fn a_user_is_the_same_person_every_time() {
        assert_eq!(Person::new(5, 17, 0), Person::new(5, 17, 0));
        assert_ne!(Person::new(5, 17, 0), Person::new(6, 17, 0));
    }

    #[test]
    fn favourite_and_second_genre_differ() {
        for number in 0..1000 {
            let taste = Person::new(1, number, 0).taste;
            assert_ne!(taste.favourite, taste.second);
        }
    }

    #[test]
    fn ids_and_addresses_are_written_out() {
        let person = Person::new(1, 17, 0);
        let mut text = "left over".to_owned();
        person.write_user_id(&mut text);
        assert_eq!(text, "u0000017");
        write_hex_id('s', 0x0123_4567_89ab_cdef, &mut text);
        assert_eq!(text, "s0123456789abcdef");
        for device in 0..3 {
            person.write_ip(device, &mut text);
            assert!(text.parse::<std::net::Ipv4Addr>().is_ok(), "{text}");
        }
    }
}
