//! How a mesh comes to be: its founder, the tickets, everybody joining, and how peers hear of each other.

use aerolithsdb::access::{Role, Terms, Ticket};
use aerolithsdb::node::{Command, Input, LocalDocuments, Reply};
use rand::RngExt;

use crate::time::Span;
use crate::world::{Arrival, Event, Purpose, World};

/// How often hosts hear of others.
const DISCOVERY: Span = Span::seconds(60);
/// How long joining takes at most before it is tried again.
const JOINING: Span = Span::seconds(25);
/// How often it is tried.
const TRIES: usize = 20;

impl World {
    pub(crate) fn hear_of_others(&mut self, host: usize) {
        let mut others: Vec<usize> = (0..self.hosts.len()).filter(|other| *other != host).collect();
        if let Some(known) = self.scenario.network.known {
            while others.len() > known {
                others.swap_remove(self.rng.random_range(0..others.len()));
            }
        }
        let boot = self.hosts[host].boot;
        for other in others {
            let input = Input::Discovered(self.hosts[other].id, vec![self.hosts[other].address()]);
            let at = self.now + Span::ms(self.rng.random_range(100..1_000));
            self.at(at, Event::Arrive { to: host, boot, what: Arrival::Input(Box::new(input)) });
        }
    }

    /// Has every host hear of others again, as from a search in the network.
    pub fn search(&mut self) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].is_up() {
                self.hear_of_others(host);
            }
        }
    }

    /// How often [`World::search`] is due.
    #[must_use]
    pub fn search_interval() -> Span {
        DISCOVERY
    }

    /// Starts everybody and has them join the founder's mesh.
    ///
    /// # Errors
    /// What did not work.
    pub fn found(&mut self) -> Result<(), String> {
        let start = |world: &mut Self, host| world.start(host).map_err(|error| format!("peer {host}: {error}"));
        start(self, 0)?;
        self.run_until(self.now + Span::ms(100));
        let mut tickets = Vec::new();
        for role in [Role::Writer, Role::Reader] {
            let expires = self.hosts[0].clock.shows(self.now).plus_ms(24 * 60 * 60 * 1_000);
            let terms = Terms { role, expires, uses: 1_000 };
            let addresses = vec![self.hosts[0].address()];
            let id = self.command(0, Command::Invite { terms, addresses }, Purpose::Ask);
            self.run_until(self.now + Span::seconds(1));
            match self.reply(0, id) {
                Some(Ok(Reply::Ticket(ticket))) => tickets.push(*ticket),
                other => return Err(format!("the founder gave no ticket: {other:?}")),
            }
        }
        for host in 1..self.hosts.len() {
            start(self, host)?;
        }
        let waiting: Vec<usize> = (1..self.hosts.len()).collect();
        self.join(&tickets, waiting)?;
        self.search();
        Ok(())
    }

    /// Has hosts join, again when it does not work at once.
    fn join(&mut self, tickets: &[Ticket], mut waiting: Vec<usize>) -> Result<(), String> {
        let mut why = String::new();
        for _ in 0..TRIES {
            let mut asked = Vec::new();
            for host in std::mem::take(&mut waiting) {
                let ticket = &tickets[usize::from(self.hosts[host].role == Role::Reader)];
                let join = Command::Join { ticket: Box::new(ticket.clone()), local: LocalDocuments::Leave };
                asked.push((host, self.command(host, join, Purpose::Ask)));
            }
            self.run_until(self.now + JOINING);
            for (host, id) in asked {
                match self.reply(host, id) {
                    Some(Ok(_)) => {}
                    other => {
                        why = format!("{other:?}");
                        waiting.push(host);
                    }
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
        }
        Err(format!("peers {waiting:?} could not join: {why}"))
    }
}
