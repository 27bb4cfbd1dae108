//! What an event says of who did it: the words of a visit, made when it begins. With a fact it makes an event, which borrows from both.

use activity_schemas::{ClickEvent, Event, WatchEvent};

use super::{
    cast::Role,
    catalogue::Catalogue,
    journey::Fact,
    people::{Origin, Person, write_address, write_hex_id},
};

/// The words of a visit.
#[derive(Default)]
pub(crate) struct Identity {
    pub(crate) person: u32,
    pub(crate) role: Role,
    pub(crate) country: &'static str,
    pub(crate) referrer: Option<&'static str>,
    pub(crate) campaign: Option<&'static str>,
    user_agent: &'static str,
    /// How far the device's clock is off.
    skew_ms: i64,
    user_id: String,
    session_id: String,
    device_id: String,
    ip: String,
    playback_id: String,
}

impl Identity {
    /// The words of a new visit, except where it came from.
    pub(crate) fn begin(
        &mut self,
        person: Person,
        origin: &Origin,
        role: Role,
        session_bits: u64,
        skew_ms: i64,
    ) {
        self.person = person.number;
        self.role = role;
        self.country = origin.country;
        self.user_agent = origin.user_agent;
        self.skew_ms = skew_ms;
        person.write_user_id(&mut self.user_id);
        write_hex_id('s', session_bits, &mut self.session_id);
        write_hex_id('d', origin.device, &mut self.device_id);
        write_address(origin.address, &mut self.ip);
    }

    pub(crate) fn begin_playback(&mut self, bits: u64) {
        write_hex_id('p', bits, &mut self.playback_id);
    }

    /// Takes over another's words into its own memory.
    pub(crate) fn copy(&mut self, other: &Self) {
        self.person = other.person;
        self.role = other.role;
        self.country = other.country;
        self.referrer = other.referrer;
        self.campaign = other.campaign;
        self.user_agent = other.user_agent;
        self.skew_ms = other.skew_ms;
        self.user_id.clone_from(&other.user_id);
        self.session_id.clone_from(&other.session_id);
        self.device_id.clone_from(&other.device_id);
        self.ip.clone_from(&other.ip);
        self.playback_id.clone_from(&other.playback_id);
    }

    /// The fact in full, borrowing from this and the catalogue.
    pub(crate) fn event<'a>(
        &'a self,
        fact: Fact,
        event_id: &'a str,
        (occurred_ms, received_at): (i64, i64),
        catalogue: &'a Catalogue,
    ) -> Event<'a> {
        let occurred_at = occurred_ms + self.skew_ms;
        match fact {
            Fact::Click {
                page,
                element,
                thing,
            } => Event::Click(ClickEvent {
                event_id,
                occurred_at,
                received_at,
                user_id: &self.user_id,
                session_id: Some(&self.session_id),
                device_id: Some(&self.device_id),
                ip: Some(&self.ip),
                country: Some(self.country),
                user_agent: Some(self.user_agent),
                page: Some(page.path(catalogue)),
                element: Some(element),
                item_id: thing.id(catalogue),
                referrer: self.referrer,
                campaign: self.campaign,
            }),
            Fact::Watch(report) => Event::Watch(WatchEvent {
                event_id,
                occurred_at,
                received_at,
                user_id: &self.user_id,
                session_id: Some(&self.session_id),
                device_id: Some(&self.device_id),
                ip: Some(&self.ip),
                country: Some(self.country),
                video_id: &catalogue.title(report.title).id,
                playback_id: Some(&self.playback_id),
                action: report.action,
                position_ms: Some(report.position_ms),
                duration_ms: Some(report.duration_ms),
                rebuffer_ms: Some(report.rebuffer_ms),
            }),
        }
    }
}
