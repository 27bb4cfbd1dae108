//! The signs of a script: every feature of a click, documented once. The order here is the order of the column `features` in `fraud_scores` and of the weights
//! that are fitted; a sign that is added goes to the end of its stage and raises the group's `STATE_VERSION`.
//!
//! A sign is a value that is the more suspicious the higher it is. Its range, and what is usual and rare before the site's own traffic is known, are general
//! grounds, not fitted. Signs of one family see the same thing from several sides, and count once.

/// What a sign is about; the most surprising sign of a family speaks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Rate,
    Rhythm,
    Targets,
    Reach,
    Path,
    Hours,
    Page,
    Declared,
    Company,
    Surge,
    Spread,
    Crowd,
    Circle,
    SamePath,
}

/// Number of families.
pub(super) const FAMILIES: usize = Family::SamePath as usize + 1;

/// Two figures that a reason names.
pub(super) type Figures = [f32; 2];

/// One feature.
pub struct Sign {
    /// Its name: the word that its reason begins with, and the name of its weight.
    pub name: &'static str,
    /// What it measures.
    pub about: &'static str,
    pub(super) family: Family,
    /// Values beyond are taken as the end.
    pub(super) range: (f32, f32),
    /// Without knowledge of the site: up to here nothing is odd.
    pub(super) usual: f32,
    /// Without knowledge of the site: one actor in a thousand exceeds it.
    pub(super) rare: f32,
    /// Without labels: how far it is to be believed, 0 to 1.
    pub(super) trust: f32,
    /// The reason's words, from the figures.
    pub(super) words: fn(Figures) -> String,
}

macro_rules! signs {
    ($($id:ident $name:literal $family:ident $range:expr, $usual:expr, $rare:expr, $trust:expr; $about:literal, $words:expr;)*) => {
        /// A sign by its place in [`SIGNS`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(dead_code, reason = "a device's signs are those of an address, some places on")]
        pub(super) enum Id { $($id),* }

        /// Every sign, in order.
        pub const SIGNS: &[Sign] = &[$(Sign {
            name: $name, about: $about, family: Family::$family, range: $range, usual: $usual, rare: $rare, trust: $trust, words: $words,
        }),*];
    };
}

signs! {
    // Of the user; values named "ln" are natural logarithms of counts.
    Burst "burst" Rate (0.0, 8.0), 1.8, 4.4, 0.8; "ln of the user's clicks in 10 seconds", |[n, _]| format!("{n:.0} clicks in 10 seconds");
    Minute "fast" Rate (0.0, 9.0), 2.5, 5.0, 0.9; "ln of the user's clicks in a minute", |[n, _]| format!("{n:.0} clicks in a minute");
    TenMinutes "tireless" Rate (0.0, 10.0), 3.4, 6.4, 1.0; "ln of the user's clicks in 10 minutes", |[n, _]| format!("{n:.0} clicks in 10 minutes");
    Hour "busy" Rate (0.0, 11.0), 4.0, 7.6, 0.9; "ln of the user's clicks in an hour", |[n, _]| format!("{n:.0} clicks in an hour");
    Day "persistent" Rate (0.0, 12.0), 4.6, 9.2, 0.4; "ln of the user's clicks in a day", |[n, _]| format!("{n:.0} clicks in 24 hours");
    Even "regular gaps" Rhythm (-1.0, 4.0), 0.0, 2.0, 1.0; "evenness of the user's latest gaps: minus ln of their coefficient of variation",
        |[seconds, spread]| format!("the latest clicks are {seconds:.1} s apart ± {spread:.0} %");
    Tame "tame gaps" Rhythm (-1.0, 4.0), 0.1, 1.7, 0.9; "how close together the logarithms of the user's latest gaps lie: minus ln of their standard deviation",
        |[seconds, factor]| format!("gaps about {seconds:.1} s, within a factor of {factor:.2}");
    Clustered "clustered gaps" Rhythm (0.0, 1.0), 0.25, 0.85, 0.9; "share of the user's latest gaps within a tenth of their median",
        |[seconds, share]| format!("{share:.0} % of the gaps are about {seconds:.1} s");
    Rhythm "repeated rhythm" Rhythm (0.0, 1.0), 0.2, 0.7, 0.9; "share of the user's gaps that follow two others as they did before",
        |[share, _]| format!("{share:.0} % of the gaps repeat an earlier sequence of gaps");
    Path "repeated path" Path (0.0, 1.0), 0.35, 0.95, 0.7; "share of the user's targets that follow two others as they did before",
        |[share, _]| format!("{share:.0} % of the clicks repeat an earlier sequence of targets");
    Few "few targets" Targets (0.0, 1.0), 0.4, 0.98, 0.8; "how few targets the user's latest 16 clicks have: 1 minus their entropy by that of 16 different ones",
        |[n, of]| format!("{n:.0} targets in {of:.0} clicks");
    Many "many targets" Reach (0.0, 8.0), 3.6, 6.7, 0.4; "ln of the different targets of the user in a day", |[n, _]| format!("{n:.0} different targets in a day");
    Rare "rare targets" Reach (0.0, 12.0), 5.0, 12.0, 0.3; "how rarely other users go where this user goes: mean of minus ln of their share", |[odds, _]| format!("targets that one in {odds:.0} users visits");
    Sequence "sequence" Reach (0.0, 1.0), 0.1, 0.7, 1.0; "share of the user's numbered targets that go on by the same small step", |[share, _]| format!("{share:.0} % of the targets are numbered one after the other");
    Hours "sleepless" Hours (0.0, 24.0), 3.0, 21.0, 0.9; "hours of the last 24 in which the user clicked", |[n, _]| format!("active in {n:.0} of the last 24 hours");
    Visits "many visits" Hours (0.0, 5.0), 1.1, 3.9, 0.7; "ln of the user's visits in a day", |[n, _]| format!("{n:.0} visits in 24 hours");
    Shallow "shallow visits" Hours (0.0, 1.0), 0.2, 1.1, 0.6; "visits by clicks of a user who came at least three times", |[clicks, visits]| format!("{clicks:.1} clicks a visit in {visits:.0} visits");
    NoPage "no page" Page (0.0, 1.0), 0.2, 0.95, 0.9; "share of the user's clicks that name no page", |[n, of]| format!("{n:.0} of {of:.0} clicks name none");
    Jumps "jumps" Page (0.0, 1.0), 0.4, 1.02, 0.7; "share of the user's clicks on pages that no earlier click led to", |[n, of]| format!("{n:.0} of {of:.0} clicks are on pages that no earlier click led to");
    Declared "declared" Declared (0.0, 1.0), 0.0, 1.0, 1.0; "the user agent says that it is a script", |_| "the user agent says that it is a script".to_owned();
    Company "company" Company (0.0, 1.0), 0.05, 0.7, 0.6; "how suspicious the other users of this user's targets are", |[share, _]| format!("others who visit these targets have a mean suspicion of {share:.0} %");
    Surge "surge" Surge (-1.0, 5.0), 0.5, 3.0, 0.5; "ln of how much more the user's targets are clicked now than they usually are", |[factor, _]| format!("the targets are clicked {factor:.1} times as much as usual");
    Addresses "many addresses" Spread (0.0, 4.5), 1.1, 3.2, 0.8; "ln of the user's addresses in a day", |[n, _]| format!("{n:.0} addresses in a day");
    Devices "many devices" Spread (0.0, 4.5), 0.9, 2.6, 0.8; "ln of the user's devices in a day", |[n, _]| format!("{n:.0} devices in a day");
    Switching "switching" Spread (0.0, 1.0), 0.1, 0.6, 0.8; "share of the user's clicks that follow one from another device within ten minutes", |[share, _]| format!("{share:.0} % of the clicks come from another device than the click before");
    Circle "circle" Circle (0.0, 1.0), 0.05, 0.3, 0.8; "how far the user's targets are a circle: how close, on average, the targets are from which others come to them; two targets are close if many users of each come from the other",
        |[share, _]| format!("others come to these targets from one another ({share:.0} % each way)");
    SamePath "same path" SamePath (0.0, 1.0), 0.05, 0.3, 0.8; "how close the targets are between which the user goes",
        |[share, _]| format!("others go between the same targets ({share:.0} % each way)");
    // Of the address.
    AddressUsers "address: users" Crowd (0.0, 8.0), 2.5, 8.0, 0.2; "ln of the address's users in a day", |[n, _]| format!("{n:.0} users in a day");
    AddressDevices "address: devices" Crowd (0.0, 8.0), 2.8, 8.0, 0.2; "ln of the address's devices in a day", |[n, _]| format!("{n:.0} devices in a day");
    AddressBusy "address: busy" Rate (0.0, 9.0), 3.7, 6.4, 0.5; "ln of the address's clicks in 10 minutes, by users of the day", |[n, _]| format!("{n:.0} clicks a user in 10 minutes");
    AddressEven "address: regular gaps" Rhythm (-1.0, 4.0), 0.3, 2.0, 0.8; "evenness of the address's latest gaps", |[seconds, spread]| format!("the latest clicks are {seconds:.1} s apart ± {spread:.0} %");
    AddressFew "address: few targets" Targets (0.0, 1.0), 0.4, 0.98, 0.6; "how few targets the address's latest 16 clicks have", |[n, of]| format!("{n:.0} targets in {of:.0} clicks");
    AddressSequence "address: sequence" Reach (0.0, 1.0), 0.1, 0.7, 0.9; "share of the address's numbered targets that go on by the same small step", |[share, _]| format!("{share:.0} % of the targets are numbered one after the other");
    AddressCompany "address: company" Company (0.0, 1.0), 0.15, 0.7, 0.8; "how suspicious the other users of the address are", |[share, n]| format!("{n:.0} other users have a mean suspicion of {share:.0} %");
    AddressNew "address: newcomers" Crowd (0.0, 1.0), 0.7, 1.2, 0.3; "share of the address's other users that came up within the last hour", |[share, n]| format!("{share:.0} % of {n:.0} other users are new");
    // Of the device.
    DeviceUsers "device: users" Crowd (0.0, 5.0), 0.8, 2.2, 1.0; "ln of the device's users in a day", |[n, _]| format!("{n:.0} users in a day");
    DeviceAddresses "device: addresses" Crowd (0.0, 5.0), 1.2, 3.2, 0.8; "ln of the device's addresses in a day", |[n, _]| format!("{n:.0} addresses in a day");
    DeviceBusy "device: busy" Rate (0.0, 9.0), 3.7, 6.4, 0.5; "ln of the device's clicks in 10 minutes, by users of the day", |[n, _]| format!("{n:.0} clicks a user in 10 minutes");
    DeviceEven "device: regular gaps" Rhythm (-1.0, 4.0), 0.3, 2.0, 0.8; "evenness of the device's latest gaps", |[seconds, spread]| format!("the latest clicks are {seconds:.1} s apart ± {spread:.0} %");
    DeviceFew "device: few targets" Targets (0.0, 1.0), 0.4, 0.98, 0.6; "how few targets the device's latest 16 clicks have", |[n, of]| format!("{n:.0} targets in {of:.0} clicks");
    DeviceSequence "device: sequence" Reach (0.0, 1.0), 0.1, 0.7, 0.9; "share of the device's numbered targets that go on by the same small step", |[share, _]| format!("{share:.0} % of the targets are numbered one after the other");
    DeviceCompany "device: company" Company (0.0, 1.0), 0.15, 0.7, 0.8; "how suspicious the other users of the device are", |[share, n]| format!("{n:.0} other users have a mean suspicion of {share:.0} %");
    DeviceNew "device: newcomers" Crowd (0.0, 1.0), 0.7, 1.2, 0.3; "share of the device's other users that came up within the last hour", |[share, n]| format!("{share:.0} % of {n:.0} other users are new");
}

/// Signs of the user, from 0.
pub(super) const USER_SIGNS: usize = Id::AddressUsers as usize;
/// Signs of an address, and of a device.
pub(super) const PLACE_SIGNS: usize = Id::DeviceUsers as usize - Id::AddressUsers as usize;

const _: () = assert!(SIGNS.len() == USER_SIGNS + 2 * PLACE_SIGNS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_has_a_name_of_its_own_and_bounds_that_rise() {
        for (index, sign) in SIGNS.iter().enumerate() {
            assert!(SIGNS[..index].iter().all(|other| other.name != sign.name));
            assert!(
                sign.usual < sign.rare && sign.range.0 < sign.range.1,
                "{}",
                sign.name
            );
            assert!((0.0..=1.0).contains(&sign.trust));
        }
    }
}
