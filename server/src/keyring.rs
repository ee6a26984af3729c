//! The master keys of a server that runs, which may change while it does. Whoever seals something
//! does it within a unit of work; a change waits for those that have begun, so that nothing that
//! was sealed under the key before comes to be stored behind the change.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use semilla_core::entropy::Entropy;
use semilla_core::seal::{Keyring, Purpose, SealError, Sealed};
use semilla_core::secret::Seed;
use tokio::sync::{Notify, RwLock as UnitLock, RwLockReadGuard};
use zeroize::Zeroizing;

/// How long a change waits for units that have begun before it gives way and is tried again.
const CHANGE_TIME: Duration = Duration::from_secs(5);

/// Master keys that may change.
pub struct Keys {
    ring: RwLock<Arc<Keyring>>,
    units: UnitLock<()>,
    /// Told at each change.
    changed: Notify,
}

impl From<Keyring> for Keys {
    fn from(ring: Keyring) -> Self {
        let ring = RwLock::new(Arc::new(ring));
        Self { ring, units: UnitLock::new(()), changed: Notify::new() }
    }
}

impl Keys {
    /// The keys as they are now.
    pub fn ring(&self) -> Arc<Keyring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Holds a change off until this is dropped: for as long as something is sealed and not stored.
    pub async fn unit(&self) -> RwLockReadGuard<'_, ()> {
        self.units.read().await
    }

    /// Takes other keys; false where units that have begun did not end in time.
    pub async fn replace(&self, ring: Keyring) -> bool {
        let Ok(_alone) = tokio::time::timeout(CHANGE_TIME, self.units.write()).await else {
            return false;
        };
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        self.changed.notify_one();
        true
    }

    /// Waits for the next change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// As [`Keyring::seal`].
    pub fn seal(&self, plain: &[u8], purpose: &Purpose<'_>, entropy: &dyn Entropy) -> Sealed {
        self.ring().seal(plain, purpose, entropy)
    }

    /// As [`Keyring::open`].
    pub fn open(
        &self,
        sealed: &Sealed,
        purpose: &Purpose<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.ring().open(sealed, purpose)
    }

    /// As [`Keyring::seal_seed`].
    pub fn seal_seed(&self, seed: &Seed, purpose: &Purpose<'_>, entropy: &dyn Entropy) -> Sealed {
        self.ring().seal_seed(seed, purpose, entropy)
    }

    /// As [`Keyring::open_seed`].
    pub fn open_seed(&self, sealed: &Sealed, purpose: &Purpose<'_>) -> Result<Seed, SealError> {
        self.ring().open_seed(sealed, purpose)
    }
}
