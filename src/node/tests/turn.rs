//! Peers that found a mesh, leave the one that they share, and come back to it.

use super::*;

impl World {
    /// Has a peer found a mesh or leave one, and waits for the answer.
    fn turn(&mut self, at: usize, command: Command) -> Result<(String, u64)> {
        let id = self.command(at, command);
        self.run(5_000);
        let reply = self.replies.remove(&(at, id)).expect("a turn is answered in 5 s")?;
        let Reply::Entered { mesh, name, by, carried, .. } = reply else { panic!("{reply:?}") };
        assert_eq!((mesh, by), (self.peers[at].node.mesh(), self.id(at)));
        Ok((name, carried))
    }

    fn names(&self, at: usize) -> Vec<String> {
        let collections = self.peers[at].node.reader().collections().unwrap();
        collections.into_iter().map(|(name, _)| name.to_string()).collect()
    }
}

fn found(name: &str, local: LocalDocuments) -> Command {
    Command::Found { name: name.into(), local, farewell: Farewell::WithAdmin }
}

fn part(local: LocalDocuments) -> Command {
    Command::Part { local, farewell: Farewell::WithAdmin }
}

#[test]
fn the_last_admin_leaves_the_others_without_one_on_purpose_only() {
    let mut world = World::new(3);
    world.join(1, 0, Role::Writer);
    let (mesh, local) = (world.peers[0].node.mesh(), LocalDocuments::Carry);
    for leave in [part(local), found("another", local)] {
        let refused = world.ask(0, leave).unwrap_err();
        assert!(matches!(&refused, Error::Conflict(why) if why.contains("only admin")), "{refused}");
    }
    assert_eq!(world.peers[0].node.mesh(), mesh);
    // Nobody asks that of others.
    world.turn(1, part(local)).unwrap();
    world.join(1, 0, Role::Writer);
    world.turn(0, Command::Part { local, farewell: Farewell::WithoutAdmin }).unwrap();
    assert_ne!(world.peers[0].node.mesh(), mesh);
    // With a second admin the first one may go.
    world.join(2, 0, Role::Admin);
    world.turn(0, part(local)).unwrap();
}

#[test]
fn a_peer_that_leaves_takes_its_documents_along_or_not() {
    for local in [LocalDocuments::Carry, LocalDocuments::Leave] {
        let mut world = World::mesh(3);
        world.put(0, "notes/a", json!({"n": 1})).unwrap();
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            world.connect(a, b);
        }
        world.run(5_000);
        let (shared, state) = (world.peers[0].node.mesh(), world.state(0));
        let carried = u64::from(local == LocalDocuments::Carry);
        assert_eq!(world.turn(1, part(local)).unwrap(), ("mesh 1".into(), carried));
        assert_ne!(world.peers[1].node.mesh(), shared);
        assert_eq!(world.peers[1].node.member_report().len(), 1);
        assert_eq!(world.get(1, "notes/a").is_some(), local == LocalDocuments::Carry);
        // Neither side hears of the other any more, though they meet.
        world.put(1, "notes/mine", json!({"n": 2})).unwrap();
        world.put(0, "notes/ours", json!({"n": 3})).unwrap();
        world.connect(0, 1);
        world.run(30_000);
        assert!(!world.links.contains(&(0, 1)) && !world.links.contains(&(1, 2)));
        assert_eq!((world.get(0, "notes/mine"), world.get(1, "notes/ours")), (None, None));
        // The mesh goes on, with everything.
        assert_eq!(world.get(2, "notes/ours"), Some(json!({"n": 3})));
        assert_eq!(world.peers[0].node.mesh(), shared);
        assert!(state.iter().all(|document| world.state(2).get(document.0) == Some(document.1)));
        let before = (world.peers[1].node.mesh(), world.state(1));
        world.restart(1);
        assert_eq!((world.peers[1].node.mesh(), world.state(1)), before);
    }
}

#[test]
fn a_peer_that_left_can_come_back_and_its_old_and_new_edits_merge() {
    let mut world = World::mesh(2);
    world.put(1, "notes/a", json!({"n": 1, "old": true})).unwrap();
    world.put(1, "notes/a", json!({"n": 2, "old": true})).unwrap();
    world.put(1, "notes/b", json!({"n": 1})).unwrap();
    world.connect(0, 1);
    world.run(5_000);
    let shared = world.peers[0].node.mesh();
    world.turn(1, part(LocalDocuments::Carry)).unwrap();
    world.put(1, "notes/a", json!({"n": 2, "old": true, "new": true})).unwrap();
    world.put(1, "notes/c", json!({"n": 1})).unwrap();
    // It wrote these documents under its own name before: had it the same sequence numbers now, its changes would
    // be taken for a fork of themselves.
    world.join(1, 0, Role::Writer);
    assert_eq!(world.peers[1].node.mesh(), shared);
    world.put(1, "notes/b", json!({"n": 2})).unwrap();
    world.run(5_000);
    assert_eq!(world.state(0), world.state(1));
    for at in 0..2 {
        assert_eq!(world.sync_report(at).letters, [], "{at}");
        assert_eq!(world.get(at, "notes/a"), Some(json!({"n": 2, "old": true, "new": true})), "{at}");
        assert_eq!(world.get(at, "notes/b"), Some(json!({"n": 2})), "{at}");
        assert_eq!(world.get(at, "notes/c"), Some(json!({"n": 1})), "{at}");
    }
    assert_eq!(world.peers[0].node.member_report().len(), 2);
}

#[test]
fn a_peer_founds_a_mesh_alone_or_among_others() {
    let mut world = World::mesh(2);
    world.put(1, "notes/a", json!({"n": 1})).unwrap();
    let mut meshes = vec![world.peers[1].node.mesh()];
    for (name, local, carried) in [("first", LocalDocuments::Carry, 1), ("second", LocalDocuments::Leave, 0)] {
        assert_eq!(world.turn(1, found(name, local)).unwrap(), (name.into(), carried));
        assert_eq!(world.get(1, "notes/a").is_some(), carried == 1);
        assert!(!meshes.contains(&world.peers[1].node.mesh()));
        meshes.push(world.peers[1].node.mesh());
    }
    world.add(2);
    world.join(2, 1, Role::Writer);
    assert_eq!(world.peers[2].node.context(), world.peers[1].node.context());
    assert_eq!(world.peers[2].node.context().name, "second");
}

#[test]
fn what_does_not_go_is_refused_and_changes_nothing() {
    let mut world = World::new(2);
    let mesh = world.peers[1].node.mesh();
    let alone = world.ask(1, part(LocalDocuments::Carry)).unwrap_err();
    assert!(matches!(&alone, Error::Conflict(why) if why.contains("alone")), "{alone}");
    let nameless = world.ask(1, found("", LocalDocuments::Carry)).unwrap_err();
    assert!(matches!(nameless, Error::Invalid(_)), "{nameless}");
    let ticket = world.ticket(0, Role::Writer, 1, 60_000).unwrap();
    world.cut.extend([(0, 1), (1, 0)]);
    world.command(1, Command::Join { ticket: Box::new(ticket), local: LocalDocuments::Carry });
    let joining = world.ask(1, found("mine", LocalDocuments::Carry)).unwrap_err();
    assert!(matches!(joining, Error::Conflict(_)), "{joining}");
    assert_eq!(world.peers[1].node.mesh(), mesh);
}

#[test]
fn a_peer_that_stops_while_it_carries_goes_on_at_its_next_start() {
    let mut world = World::mesh(2);
    for n in 0..450 {
        world.put(1, &format!("docs/{n:03}"), json!({"n": n})).unwrap();
    }
    world.command(1, part(LocalDocuments::Carry));
    let carried = |world: &World| world.state(1).len();
    assert!((1..450).contains(&carried(&world)), "{}", carried(&world));
    let mesh = world.peers[1].node.mesh();
    world.restart(1);
    world.run(5_000);
    assert_eq!((carried(&world), world.peers[1].node.mesh()), (450, mesh));
}

#[test]
fn who_waits_for_the_others_is_answered_when_they_are_left() {
    let mut world = World::mesh(2);
    let (document, concern) = (key("notes/a"), WriteConcern { peers: 1, timeout_ms: 60_000 });
    let put = Command::Put { document: document.clone(), body: object(json!({})), condition: Condition::Any };
    let waiting = world.command(1, Command::Confirm { document, write: Box::new(put), concern });
    assert!(!world.replies.contains_key(&(1, waiting)));
    world.turn(1, part(LocalDocuments::Leave)).unwrap();
    let reply = world.replies.remove(&(1, waiting)).unwrap().unwrap();
    assert!(matches!(reply, Reply::Confirmed { complete: false, .. }), "{reply:?}");
}

#[test]
fn an_empty_collection_is_kept_carried_and_in_nobodys_way() {
    let mut world = World::mesh(2);
    let create = |world: &mut World, at, name: &str| {
        let Reply::Collection(new) = world.ask(at, Command::CreateCollection(name.parse().unwrap()))? else {
            panic!("no collection")
        };
        Ok::<_, Error>(new)
    };
    assert_eq!(create(&mut world, 1, "empty"), Ok(true));
    assert_eq!(create(&mut world, 1, "empty"), Ok(false));
    assert!(matches!(create(&mut world, 1, "_mine"), Err(Error::Denied(_))));
    world.restart(1);
    assert_eq!(world.names(1), ["empty"]);
    world.connect(0, 1);
    world.run(5_000);
    assert!(world.sync_report(1).collections[0].peers[0].standing.equal);
    world.put(0, "empty/a", json!({"n": 1})).unwrap();
    world.run(5_000);
    assert_eq!(world.get(1, "empty/a"), Some(json!({"n": 1})));
    assert_eq!(create(&mut world, 1, "later"), Ok(true));
    world.turn(1, part(LocalDocuments::Carry)).unwrap();
    assert_eq!(world.names(1), ["empty", "later"]);
    world.turn(1, found("bare", LocalDocuments::Leave)).unwrap();
    assert_eq!(world.names(1), Vec::<String>::new());
}

#[test]
fn a_reader_makes_no_collection() {
    let mut world = World::new(2);
    world.join(1, 0, Role::Reader);
    let refused = world.ask(1, Command::CreateCollection("notes".parse().unwrap())).unwrap_err();
    assert!(matches!(refused, Error::Denied(_)), "{refused}");
    assert_eq!(world.names(1), Vec::<String>::new());
}
