//! What a table of real files survives: pages that cannot be read, a list of pages that is gone, no files at all.

use super::conformance::{Model, put};
use super::*;

#[test]
fn a_table_with_an_unreadable_page_is_built_anew_under_its_readers() {
    let dir = tempfile::TempDir::new().unwrap();
    let folder = dir.path().join("table");
    let precious = |class: [u8; 2]| class == *b"p0";
    let open = || SledKv::open(&folder, SledConfig { precious: Some(precious), ..SledConfig::default() }).unwrap();
    let store = open();
    let mut model = Model::new();
    for n in 0..5_000u32 {
        let (prefix, length) =
            if n < 100 { ("p", 10) } else { ("k", n as usize % 50 * if n % 500 == 0 { 900 } else { 1 }) };
        model.insert(format!("{prefix}{n:05}").into_bytes(), vec![n as u8; length]);
    }
    model.iter().for_each(|(key, value)| store.apply(put(key, value)).unwrap());
    store.flush().unwrap();
    drop(store);
    // Every slot of the slab that holds most, one after the other.
    let slab = std::fs::read_dir(folder.join("slabs")).unwrap().map(|entry| entry.unwrap().path());
    let slab = slab.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let store = open();
    let mut bytes = std::fs::read(&slab).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&slab, bytes).unwrap();
    let (mut unreadable, mut found) = (Vec::new(), 0);
    for (key, value) in &model {
        match store.get(key) {
            Ok(read) => {
                assert_eq!(read.as_deref(), Some(&value[..]));
                found += 1;
            }
            Err(Error::Unreadable(_)) => unreadable.push(key.clone()),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(!unreadable.is_empty() && found > 4_500, "{found} found, {} not", unreadable.len());
    assert!(matches!(store.apply(put(b"later", b"x")), Err(Error::Unreadable(_))));
    assert!(store.condition().mending.is_some());
    store.mend(&|| true).unwrap();
    let lost = Lost::decode(&store.get(Lost::KEY).unwrap().unwrap());
    assert_eq!((lost.pages_lost, store.condition().mended), (1, 1));
    for (key, value) in &model {
        let read = store.get(key).unwrap();
        let is_lost = unreadable.contains(key) && !precious([key[0], key[1]]);
        assert_eq!(read.as_deref(), Some(&value[..]).filter(|_| !is_lost), "{}", String::from_utf8_lossy(key));
        assert!(!is_lost || lost.covers(key));
    }
    store.apply(put(b"later", b"x")).unwrap();
    store.flush().unwrap();
    drop(store);
    // Interrupted before the first page: a start begins again, and ends with the same.
    std::fs::create_dir(dir.path().join("table.mending")).unwrap();
    let store = open();
    assert_eq!(store.get(b"later").unwrap().as_deref(), Some(&b"x"[..]));
    assert_eq!(Lost::decode(&store.get(Lost::KEY).unwrap().unwrap()).ranges(), lost.ranges());
    drop(store);
    // Without its list of pages all of them are found.
    for entry in std::fs::read_dir(folder.join("metadata")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let store = open();
    assert_eq!(store.get(b"later").unwrap().as_deref(), Some(&b"x"[..]));
    let there = model.keys().filter(|key| store.get(key).unwrap().is_some()).count();
    assert!(there >= found, "{there} of {found}");
    drop(store);
    // And without a table what is precious is there.
    std::fs::remove_dir_all(&folder).unwrap();
    let store = open();
    assert!(store.get(b"p00000").unwrap().is_some() && store.get(b"k00100").unwrap().is_none());
    assert_eq!(Lost::decode(&store.get(Lost::KEY).unwrap().unwrap()).ranges(), Lost::anything().ranges());
}
