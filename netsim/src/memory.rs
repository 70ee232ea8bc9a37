//! What the memory of each host comes to: every allocation is charged to the host whose code made it, until it is
//! freed, by whomever.
//!
//! A program that wants this has [`Tracked`] as its global allocator and calls [`track`]; elsewhere all accounts are
//! empty.

use std::alloc::System;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use tracking_allocator::{AllocationGroupId, AllocationGroupToken, AllocationRegistry, AllocationTracker, Allocator};

/// The allocator that keeps accounts.
pub type Tracked = Allocator<System>;

/// Accounts there are at most: the hosts of all runs that are under way at one time.
const ACCOUNTS_MAX: usize = 16_384;

static HELD: [AtomicI64; ACCOUNTS_MAX] = [const { AtomicI64::new(0) }; ACCOUNTS_MAX];
/// Tokens of hosts that are no more; they cannot be made without end.
static FREE: Mutex<Vec<AllocationGroupToken>> = Mutex::new(Vec::new());

struct Ledger;

impl AllocationTracker for Ledger {
    fn allocated(&self, _: usize, bytes: usize, _: usize, account: AllocationGroupId) {
        charge(&account, bytes as i64);
    }

    fn deallocated(&self, _: usize, bytes: usize, _: usize, account: AllocationGroupId, _: AllocationGroupId) {
        charge(&account, -(bytes as i64));
    }
}

fn held(account: &AllocationGroupId) -> Option<&'static AtomicI64> {
    HELD.get(account.as_usize().get())
}

fn charge(account: &AllocationGroupId, bytes: i64) {
    if let Some(held) = held(account) {
        held.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Has allocations be counted from now on.
pub fn track() {
    // An error means that they are already.
    if AllocationRegistry::set_global_tracker(Ledger).is_ok() {
        AllocationRegistry::enable_tracking();
    }
}

/// One host's account.
pub(crate) struct Account {
    token: Option<AllocationGroupToken>,
    /// What an earlier holder of the token left.
    before: i64,
}

impl Account {
    pub(crate) fn open() -> Self {
        let token = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop().or_else(AllocationGroupToken::register);
        let mut account = Self { token, before: 0 };
        account.before = account.held();
        account
    }

    /// Does something whose allocations are charged to this account.
    pub(crate) fn charge<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let _guard = self.token.as_mut().map(AllocationGroupToken::enter);
        run()
    }

    /// Bytes that were allocated and not freed.
    pub(crate) fn held(&self) -> i64 {
        let held = self.token.as_ref().and_then(|token| held(&token.id()));
        held.map_or(0, |held| held.load(Ordering::Relaxed)) - self.before
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("held", &self.held()).finish_non_exhaustive()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        FREE.lock().unwrap_or_else(PoisonError::into_inner).extend(self.token.take());
    }
}
