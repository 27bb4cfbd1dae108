//! Who is there: what is fixed about a user (country, devices, addresses, taste) is computed from seed and number.
//!
//! Nothing of it is stored, so that a million users cost no more memory than their few mutable facts.
//!
//! An address is a home's (all devices there share it), an office's, or a carrier's gateway with many users behind it. Which kind it is cannot be read from it.

use super::{
    arrival::{self, PartOfWeek},
    catalogue::{Catalogue, GENRES, STYLES},
    random::{Random, mix, times_exp2},
};

/// A country, and how many of a hundred users live there.
pub(crate) struct Country {
    /// ISO 3166-1 alpha-2.
    pub(crate) code: &'static str,
    /// First octet of its addresses.
    octet: u8,
    per_hundred: u64,
    /// Time zones, minutes east of UTC; users are spread over them.
    zones_min: &'static [i64],
}

const fn country(
    code: &'static str,
    octet: u8,
    per_hundred: u64,
    zones_min: &'static [i64],
) -> Country {
    Country {
        code,
        octet,
        per_hundred,
        zones_min,
    }
}

pub(crate) const COUNTRIES: [Country; 12] = [
    country("US", 24, 26, &[-300, -300, -360, -480]),
    country("DE", 91, 14, &[60]),
    country("BR", 177, 10, &[-180]),
    country("IN", 117, 10, &[330]),
    country("GB", 86, 8, &[0]),
    country("FR", 90, 8, &[60]),
    country("JP", 126, 7, &[540]),
    country("PL", 83, 5, &[60]),
    country("MX", 189, 4, &[-360]),
    country("ES", 88, 3, &[60]),
    country("SE", 81, 3, &[60]),
    country("NL", 77, 2, &[60]),
];

/// How much traffic there is at a moment over all countries, in thousandths of the mean over a week.
pub(crate) fn world_level(at_ms: i64) -> i64 {
    let of_country = |country: &Country| {
        let zones = country.zones_min;
        let levels = zones.iter().map(|min| arrival::level(at_ms + min * 60_000));
        country.per_hundred as i64 * levels.sum::<i64>() / zones.len() as i64
    };
    COUNTRIES.iter().map(of_country).sum::<i64>() / 100
}

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

/// Users behind one gateway of a carrier, and in one office, on average.
const USERS_PER_GATEWAY: u64 = 60;
const USERS_PER_OFFICE: u64 = 40;

/// Of a thousand choices of a title, how many stay within the user's style.
pub(crate) const STYLE_PER_THOUSAND: u32 = 600;
/// Of a hundred choices of a genre, how many are the favourite, and the favourite or the second.
pub(crate) const FAVOURITE_PER_HUNDRED: u32 = 60;
pub(crate) const SECOND_PER_HUNDRED: u32 = 23;

/// What a user likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taste {
    pub(crate) favourite: u8,
    pub(crate) second: u8,
    pub(crate) style: u8,
}

impl Taste {
    /// The taste that these bits stand for.
    pub(crate) fn of(bits: u64) -> Self {
        let favourite = (bits % GENRES.len() as u64) as u8;
        let step = 1 + (bits >> 32) as u8 % (GENRES.len() as u8 - 1);
        Self {
            favourite,
            second: (favourite + step) % GENRES.len() as u8,
            style: (bits >> 48) as u8 % STYLES as u8,
        }
    }

    /// The genre that this user looks for next.
    pub(crate) fn genre(self, catalogue: &Catalogue, random: &mut Random) -> u8 {
        let roll = random.below(100);
        if roll < FAVOURITE_PER_HUNDRED {
            self.favourite
        } else if roll < FAVOURITE_PER_HUNDRED + SECOND_PER_HUNDRED {
            self.second
        } else {
            catalogue.any_genre(random)
        }
    }

    /// The title of a genre that this user finds next: mostly of their style.
    pub(crate) fn title_of(self, genre: u8, catalogue: &Catalogue, random: &mut Random) -> u32 {
        if random.chance(STYLE_PER_THOUSAND) {
            catalogue.any_title_of_style(genre, self.style, random)
        } else {
            catalogue.any_title(genre, random)
        }
    }

    /// Of a thousand playbacks that nothing disturbs, how many are seen to the end: taste decides, length matters a little.
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

/// How a device is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Network {
    #[default]
    Home,
    Mobile,
    Office,
}

/// Where a visit comes from: the device, its address, and what its requests say about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) device: u64,
    pub(crate) address: [u8; 4],
    pub(crate) country: &'static str,
    pub(crate) user_agent: &'static str,
    pub(crate) network: Network,
}

impl Origin {
    /// A device, at an address, in a country; each is what its bits stand for.
    pub(crate) fn of(device: u64, address: u64, country: u64) -> Self {
        let country = country_of(country >> 8);
        Self {
            device,
            address: address_in(country, address),
            country: country.code,
            user_agent: USER_AGENTS[(device >> 20) as usize % USER_AGENTS.len()],
            network: Network::Home,
        }
    }
}

/// What is fixed about a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    bits: u64,
    pub(crate) number: u32,
    pub(crate) taste: Taste,
}

impl Person {
    /// User `number` of the world that `seed` makes.
    pub(crate) fn new(seed: u64, number: u32) -> Self {
        let bits = mix(mix(seed) ^ u64::from(number));
        Self {
            bits,
            number,
            taste: Taste::of(mix(bits ^ 1)),
        }
    }

    fn country(self) -> &'static Country {
        country_of(self.bits >> 8)
    }

    /// The clock on the user's wall at a moment.
    pub(crate) fn local_ms(self, at_ms: i64) -> i64 {
        let zones = self.country().zones_min;
        at_ms + zones[(self.bits >> 40) as usize % zones.len()] * 60_000
    }

    /// Everybody has a phone; others may have a laptop (1), a television (2) or a tablet (3), and some one for work (4).
    fn has_device(self, device: u32) -> bool {
        let of_ten = (mix(self.bits ^ 5) >> (8 * device)) % 256 * 10 / 256;
        match device {
            1 => of_ten < 6,
            2 | 4 => of_ten < 4,
            3 => of_ten < 2,
            _ => true,
        }
    }

    /// Which device the user takes at this local moment, and where: at work, at home, or under way.
    fn device(self, local_ms: i64, random: &mut Random) -> (u32, Network) {
        use Network::{Home, Mobile, Office};
        let roll = random.below(100);
        let (device, network) = match (arrival::part_of_week(local_ms), roll) {
            (PartOfWeek::OfficeHours, 0..45) => (4, Office),
            (PartOfWeek::OfficeHours, 45..80) => (0, Mobile),
            (PartOfWeek::OfficeHours, _) => (1, Home),
            (PartOfWeek::Evening, 0..35) => (2, Home),
            (PartOfWeek::Evening, 35..55) => (1, Home),
            (PartOfWeek::Evening, 55..65) => (3, Home),
            (PartOfWeek::Evening, 65..88) => (0, Home),
            (PartOfWeek::Other, 0..30) => (0, Home),
            (PartOfWeek::Other, 30..70) => (0, Mobile),
            (PartOfWeek::Other, _) => (1, Home),
            (PartOfWeek::Evening, _) => (0, Mobile),
        };
        match (self.has_device(device), network) {
            (true, network) => (device, network),
            (false, Office) => (0, Mobile),
            (false, _) => (0, Home),
        }
    }

    /// Where this user's visit at this moment comes from, in a world of so many users.
    pub(crate) fn origin(self, at_ms: i64, users: u32, random: &mut Random) -> Origin {
        let (device, network) = self.device(self.local_ms(at_ms), random);
        let country = self.country();
        let residents = u64::from(users) * country.per_hundred / 100;
        let address = match network {
            Network::Home => mix(self.bits ^ 3),
            Network::Mobile => {
                // A region's gateways: the carrier gives a session any of three.
                let gateways = (residents / USERS_PER_GATEWAY).max(3);
                let gateway = self.bits >> 20;
                mix(((gateway + u64::from(random.below(3))) % gateways) ^ 0x6a7e)
            }
            Network::Office => {
                let offices = (residents / USERS_PER_OFFICE).max(1);
                mix(((self.bits >> 24) % offices) ^ 0x0ff1ce)
            }
        };
        let bits = mix(self.bits ^ (u64::from(device) << 40));
        let kind = match device {
            0 => bits as usize % 2,
            2 => 6,
            3 => 7,
            _ => 2 + bits as usize % 4,
        };
        Origin {
            device: bits,
            address: address_in(country, address),
            country: country.code,
            user_agent: USER_AGENTS[kind],
            network,
        }
    }

    /// Writes `u000000017`, with the digits of another number: they tell neither when a user came nor who is a script.
    pub(crate) fn write_user_id(self, into: &mut String) {
        into.clear();
        into.push('u');
        // Three to the eighteenth has no factor in common with ten: no two users share an id.
        let scattered = u64::from(self.number) * 387_420_489 % 1_000_000_000;
        push_decimal(into, scattered, 9);
    }
}

fn country_of(bits: u64) -> &'static Country {
    let mut roll = bits % 100;
    for country in &COUNTRIES {
        if roll < country.per_hundred {
            return country;
        }
        roll -= country.per_hundred;
    }
    &COUNTRIES[0]
}

fn address_in(country: &Country, bits: u64) -> [u8; 4] {
    let [first, second, third, ..] = bits.to_le_bytes();
    [country.octet, first, second, third]
}

/// How far a device's clock is off, milliseconds: `skewed_per_thousand` of all devices are off by anything from tenths of a second to hours.
pub(crate) fn clock_skew_ms(device: u64, skewed_per_thousand: u32) -> i64 {
    let bits = mix(device ^ 0xc10c);
    if bits % 1000 >= u64::from(skewed_per_thousand) {
        return 0;
    }
    // From 1/16 s on, each doubling more seldom than the one before: few are off by minutes, very few by hours (18 doublings).
    let octaves_256 = ((bits >> 16) & 0xff) * ((bits >> 24) & 0xff) / 14;
    let off_ms = times_exp2(62, octaves_256 as i64);
    if bits >> 63 == 0 { off_ms } else { -off_ms }
}

/// Writes an address.
pub(crate) fn write_address(address: [u8; 4], into: &mut String) {
    into.clear();
    for (index, octet) in address.into_iter().enumerate() {
        if index > 0 {
            into.push('.');
        }
        push_decimal(into, u64::from(octet), 1);
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
        assert_eq!(
            COUNTRIES.iter().map(|row| row.per_hundred).sum::<u64>(),
            100
        );
    }

    #[test]
    fn a_user_is_the_same_person_every_time() {
        assert_eq!(Person::new(5, 17), Person::new(5, 17));
        assert_ne!(Person::new(5, 17), Person::new(6, 17));
    }

    #[test]
    fn favourite_and_second_genre_differ() {
        for number in 0..1000 {
            let taste = Person::new(1, number).taste;
            assert_ne!(taste.favourite, taste.second);
        }
    }

    #[test]
    fn ids_and_addresses_are_written_out() {
        let mut text = "left over".to_owned();
        Person::new(1, 1).write_user_id(&mut text);
        assert_eq!(text, "u387420489");
        Person::new(1, 0).write_user_id(&mut text);
        assert_eq!(text, "u000000000");
        write_hex_id('s', 0x0123_4567_89ab_cdef, &mut text);
        assert_eq!(text, "s0123456789abcdef");
        write_address([10, 0, 200, 1], &mut text);
        assert_eq!(text, "10.0.200.1");
    }

    #[test]
    fn most_clocks_are_right_some_are_off_by_seconds_and_few_by_hours() {
        let skews: Vec<i64> = (0..100_000)
            .map(|device| clock_skew_ms(mix(device), 300).abs())
            .collect();
        let share = |off_ms: i64| {
            skews.iter().filter(|skew| **skew > off_ms).count() as f64 / skews.len() as f64
        };
        assert!((share(0) - 0.3).abs() < 0.01);
        assert!((0.05..0.2).contains(&share(1_000)), "{}", share(1_000));
        assert!(
            (0.001..0.02).contains(&share(3_600_000)),
            "{}",
            share(3_600_000)
        );
        assert!(skews.iter().all(|skew| *skew < 86_400_000));
    }
}
