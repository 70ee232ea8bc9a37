//! `mesh`: founding, inviting, joining, leaving, and who is in it.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::failure::{Failure, Kind, Outcome};
use super::http::Peer;
use super::output::{Field, Output, line};
use super::turn;
use crate::config::units;

const FOUNDED: [Field; 3] = [("MESH", "/mesh"), ("NAME", "/name"), ("DOCUMENTS CARRIED OVER", "/carried_documents")];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Found a mesh of this one peer and turn to it; what the mesh before holds stays on the disk
    Init {
        /// Its name, for people
        name: String,
        #[command(flatten)]
        local: Local,
        /// Leave the members of the mesh before without an admin, so that nobody lets others in any more
        #[arg(long)]
        without_admin: bool,
    },
    /// Leave the mesh that this peer shares with others, for one of its own
    ///
    /// Waits first until another member has everything that is here. Ctrl-C before that leaves nothing.
    Leave(Leave),
    /// Make a ticket with which others can join, and warn when nobody can reach what it names
    Invite(Invite),
    /// Join the mesh of a ticket; what is stored stays. A ticket of this peer's own mesh raises its role
    Join(Join),
    /// List the members
    #[command(visible_alias = "members")]
    Peers,
}

#[derive(Debug, Args)]
pub(super) struct Invite {
    /// What those who join may do
    #[arg(long, value_enum, default_value_t = Role::Writer)]
    role: Role,
    /// For how long it can be used, such as 1h or 7d
    #[arg(long, default_value = "7d", value_parser = seconds, value_name = "DURATION")]
    expires_in: u64,
    /// How many can join with it
    #[arg(long, default_value_t = 1)]
    uses: u32,
    /// Fail when nobody outside this network can reach what the ticket names; it is printed all the same
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
pub(super) struct Join {
    /// The ticket, as `mesh invite` prints it on another peer
    #[arg(value_name = "MESH_OR_TICKET")]
    ticket: String,
    #[command(flatten)]
    local: Local,
}

#[derive(Debug, Args)]
pub(super) struct Local {
    /// What happens to the documents that this peer has
    #[arg(long, value_enum, default_value_t = LocalDocuments::Carry)]
    local_documents: LocalDocuments,
}

#[derive(Debug, Args)]
pub(super) struct Leave {
    #[command(flatten)]
    local: Local,
    /// Leave those who stay without an admin, so that nobody lets others in any more
    #[arg(long)]
    without_admin: bool,
    /// Do not wait until another member has everything that is here
    #[arg(long)]
    at_once: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Role {
    /// Reads
    Reader,
    /// Reads and writes
    Writer,
    /// Reads, writes and invites
    Admin,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LocalDocuments {
    /// They are written into the mesh that this peer turns to
    Carry,
    /// They stay behind, on the disk, invisible
    Leave,
}

fn seconds(text: &str) -> Result<u64, String> {
    let ms = units::duration_ms(text).ok_or("use a duration such as 30m, 1h or 7d")?;
    Ok(ms / 1_000)
}

pub(super) fn run(command: Command, peer: &Peer, output: Output) -> Outcome {
    match command {
        Command::Init { name, local, without_admin } => {
            let local = word(local.local_documents);
            let body = json!({"name": name, "local_documents": local, "without_admin": without_admin});
            output.thing(&turn::turn(peer, "/api/v1/mesh/init", &body)?, &FOUNDED)
        }
        Command::Leave(leave) => {
            turn::prepare(peer, leave.yes, leave.at_once, leave.without_admin)?;
            let local = word(leave.local.local_documents);
            let body = json!({"local_documents": local, "without_admin": leave.without_admin});
            output.thing(&turn::turn(peer, "/api/v1/mesh/leave", &body)?, &FOUNDED)
        }
        Command::Invite(wanted) => invite(&wanted, peer, output),
        Command::Join(join) => run_join(&join, peer, output),
        Command::Peers => {
            let answer = peer.get("/api/v1/mesh/peers")?;
            let fields = [
                ("PEER", "/peer_id"),
                ("ROLE", "/role"),
                ("STANDING", "/standing"),
                ("CONNECTED", "/connected"),
                ("NO ANSWER SINCE", "/no_answer_since"),
                ("SINCE", "/since"),
                ("ADMITTED BY", "/admitted_by"),
            ];
            output.list(answer["peers"].as_array().map_or(&[], Vec::as_slice), &fields)
        }
    }
}

fn invite(wanted: &Invite, peer: &Peer, output: Output) -> Outcome {
    let body = json!({"role": word(wanted.role), "expires_in_s": wanted.expires_in, "uses": wanted.uses});
    let invited = peer.post("/api/v1/mesh/invites", &body)?;
    show(wanted, &invited, output)?;
    warnings(&invited["reach"]).iter().for_each(|warning| eprintln!("{warning}"));
    if wanted.check && invited["reach"]["outside"] == "unreached" {
        return Err(Failure::new(
            Kind::Unavailable,
            "nobody outside this network can use the ticket; see `node doctor`",
        ));
    }
    Ok(())
}

/// In a pipe the ticket alone, so that it can be handed on; for a person also how it is used.
fn show(wanted: &Invite, invited: &Value, output: Output) -> Outcome {
    let ticket = invited["ticket"].as_str().unwrap_or_default();
    if output.is_json_asked() {
        return output.document(invited);
    }
    if !output.is_table() {
        return line(ticket);
    }
    line(&format!("{ticket}\n"))?;
    let role = word(wanted.role);
    let who = if wanted.uses == 1 { format!("one {role}") } else { format!("{} peers as {role}", wanted.uses) };
    line(&format!("It lets in {who} until {}. Keep it secret. On the other peer:", cell(&invited["expires_at"])))?;
    line("\n    aerolithsdb-cli mesh join TICKET")
}

/// What is wrong with what a ticket names, for a person.
fn warnings(reach: &Value) -> Vec<String> {
    let all = reach["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |state: &'static str| all.iter().filter(move |address| address["state"] == state);
    let said = |address: &Value| format!("warning:   {}: {}", cell(&address["address"]), cell(&address["why"]));
    let unreached = || of("unreached").map(said);
    match cell(&reach["outside"]) {
        "unreached" if of("unreached").count() == 0 => vec![
            "warning: the ticket is of use on this network only: no member relays for this peer, and it has no address \
             that is reached from outside"
                .to_owned(),
        ],
        "unreached" => {
            let first = "warning: nobody outside this network can reach what the ticket names:".to_owned();
            std::iter::once(first).chain(unreached()).collect()
        }
        "untried" => {
            let first =
                "warning: whether somebody outside this network can reach what the ticket names could not be checked:";
            std::iter::once(first.to_owned()).chain(of("untried").map(said)).chain(unreached()).collect()
        }
        _ if of("unreached").count() > 0 => {
            let first = "warning: some of what the ticket names nobody can reach:".to_owned();
            std::iter::once(first).chain(unreached()).collect()
        }
        _ => Vec::new(),
    }
}

fn cell(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Joins; `node join` is the same.
pub(super) fn run_join(join: &Join, peer: &Peer, output: Output) -> Outcome {
    if !join.ticket.starts_with("aero1") {
        let message = "to join a mesh takes a ticket (it starts with aero1): ask an admin of the mesh for one, who makes \
                       it with: aerolithsdb-cli mesh invite";
        return Err(Failure::new(Kind::Usage, message));
    }
    let body = json!({"ticket": join.ticket, "local_documents": word(join.local.local_documents)});
    let fields = [
        ("MESH", "/mesh"),
        ("LET IN BY", "/peer"),
        ("ROLE", "/role"),
        ("DOCUMENTS CARRIED OVER", "/carried_documents"),
    ];
    output.thing(&turn::turn(peer, "/api/v1/mesh/join", &body)?, &fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_reach_is_named() {
        let address =
            |name: &str, state: &str| json!({"address": name, "state": state, "why": format!("{name} is bad")});
        let said = |outside: &str, addresses: &[Value]| {
            warnings(&json!({"outside": outside, "addresses": addresses})).join("\n")
        };
        let (dead, lan, open) = (address("dead", "unreached"), address("lan", "near"), address("open", "untried"));
        let both = [dead.clone(), lan.clone()];
        let text = said("unreached", &both);
        assert!(text.contains("nobody outside") && text.contains("dead is bad") && !text.contains("lan"), "{text}");
        assert!(said("unreached", std::slice::from_ref(&lan)).contains("on this network only"));
        let text = said("untried", &[open, dead.clone()]);
        assert!(
            text.contains("could not be checked") && text.contains("open is bad") && text.contains("dead"),
            "{text}"
        );
        assert!(said("reached", &[dead]).contains("some of what"));
        assert!(said("reached", &[lan]).is_empty());
    }
}
