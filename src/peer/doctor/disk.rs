//! What is said of damage to the disk: what was found, what of it is healed, and where the damaged files are.

use super::{Finding, note, problem};
use crate::node::DiskReport;

/// Nothing is said of a disk that never lost anything.
pub(super) fn finding(disk: &DiskReport) -> Option<Finding> {
    if let Some((done, pages)) = disk.condition.mending {
        return Some(problem(
            "disk",
            format!("the table is damaged and is being built anew: {done} of {pages} pages are done"),
            "What is not damaged can be read meanwhile, and writes are refused. It ends by itself. Check the disk: it \
             gave back other bytes than were written.",
        ));
    }
    let aside = disk.condition.aside.as_ref().map(|aside| aside.display().to_string());
    let what = match (&disk.rebuilding, &aside) {
        (Some(lost), Some(aside)) => format!(
            "the table was damaged and was built anew without {} of its {} pages ({}), with {} documents that can be \
             named; the damaged one is in {aside}",
            lost.pages_lost,
            lost.pages,
            if lost.ranges.is_empty() { "nothing was lost".into() } else { lost.ranges.join("; ") },
            lost.documents,
        ),
        _ if disk.damaged > 0 || disk.fetching => "documents were found damaged on the disk".to_owned(),
        _ => return None,
    };
    if disk.damaged > 0 || disk.fetching {
        let (damaged, advice) =
            (disk.damaged, "`sync status` names them. They are fetched from any member that has them.");
        let how = if disk.fetching { "they are being fetched" } else { "no connected member has them" };
        return Some(problem("disk", format!("{what}; {damaged} documents are still missing: {how}"), advice));
    }
    Some(note(
        "disk",
        format!("{what}; all of them are here again, or were nowhere else"),
        "Check the disk: it gave back other bytes than were written. Delete that folder when nobody needs it any more.",
    ))
}
