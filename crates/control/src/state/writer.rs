//! The task that changes objects.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use config::{Object, ObjectKey, ObjectKind, Spec};
use tokio::sync::{mpsc, oneshot};

use super::{Entry, Shared, now};
use crate::address::{Allotment, Pool};
use crate::aside::aside;
use crate::change::{
    Action, Also, Applied, ApplyError, Change, ChangeSet, Conflict, OnConflict, Origin, may_change,
};
use crate::store::object::{AuditEntry, Stored};
use crate::store::{self, StoreError};

/// A change set that waits for its answer.
pub(super) struct Command {
    pub(super) set: ChangeSet,
    pub(super) reply: oneshot::Sender<Result<Applied, ApplyError>>,
}

/// Owns what only changes together with objects.
pub(super) struct Writer {
    shared: Arc<Shared>,
    services: Allotment,
    version: u64,
}

/// What a change set would do: worked out without touching anything but the allotment.
#[derive(Default)]
struct Plan {
    /// New states, `None` for what goes away.
    objects: BTreeMap<ObjectKey, Option<Entry>>,
    /// Where only the position in the file is another.
    moved: Vec<(ObjectKey, Entry)>,
    applied: Applied,
    /// Owners that got a place, with the one they had before, for when the commit fails.
    allotted: Vec<(String, Option<u32>)>,
    version: u64,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        addresses: Vec<(String, String, u32)>,
        version: u64,
    ) -> Self {
        let mut services = Allotment::default();
        for (pool, owner, place) in addresses {
            if pool == Pool::Services.as_str() {
                services.restore(owner, place);
            }
        }
        Self {
            shared,
            services,
            version,
        }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(Command { set, reply }) = queue.recv().await {
            let result = self.perform(set).await;
            // Whoever asked may have gone; the work stands.
            let _ = reply.send(result);
        }
    }

    async fn perform(&mut self, set: ChangeSet) -> Result<Applied, ApplyError> {
        let mut plan = Plan {
            version: self.version,
            ..Plan::default()
        };
        let planned = set
            .changes
            .iter()
            .try_for_each(|change| self.plan(&mut plan, change, set.on_conflict));
        if let Err(error) = planned {
            self.undo(&plan);
            return Err(error);
        }
        if set.dry_run {
            self.undo(&plan);
            return Ok(plan.applied);
        }
        if (!plan.objects.is_empty() || !set.also.is_empty())
            && let Err(error) = self.commit(&plan, set).await
        {
            self.undo(&plan);
            return Err(error);
        }
        Ok(self.publish(plan))
    }

    fn plan(
        &mut self,
        plan: &mut Plan,
        change: &Change,
        on_conflict: OnConflict,
    ) -> Result<(), ApplyError> {
        let key = change.key();
        let old = match plan.objects.get(key) {
            Some(planned) => planned.clone(),
            None => self.shared.read().get(key).cloned(),
        };
        let by = match change {
            Change::Put { origin, .. } | Change::Delete { origin, .. } => origin,
        };
        let allowed = old
            .as_ref()
            .map_or(Ok(()), |old| may_change(key, &old.origin, by))
            .and_then(|()| match change {
                Change::Put { object, .. } => fresh(object, old.as_ref()),
                Change::Delete { .. } => Ok(()),
            });
        if let Err(conflict) = allowed {
            return match on_conflict {
                OnConflict::Refuse => Err(ApplyError::Conflict(conflict)),
                OnConflict::Skip => {
                    plan.applied.conflicts.push(conflict);
                    Ok(())
                }
            };
        }
        match change {
            Change::Put { object, origin } => match self.put(plan, object, origin, old) {
                Err(ApplyError::Conflict(conflict)) if on_conflict == OnConflict::Skip => {
                    plan.applied.conflicts.push(conflict);
                    Ok(())
                }
                other => other,
            },
            Change::Delete { .. } => match old {
                None if on_conflict == OnConflict::Refuse => Err(ApplyError::NotFound(key.clone())),
                None => Ok(()),
                Some(_) => {
                    plan.applied.actions.push((key.clone(), Action::Deleted));
                    plan.objects.insert(key.clone(), None);
                    Ok(())
                }
            },
        }
    }

    fn put(
        &mut self,
        plan: &mut Plan,
        object: &Arc<Object>,
        origin: &Origin,
        old: Option<Entry>,
    ) -> Result<(), ApplyError> {
        if matches!(origin, Origin::Api | Origin::File(_))
            && let Some(old) = &old
            && let Some(refused) = object.refused_changes(&old.object).into_iter().next()
        {
            return Err(ApplyError::Conflict(Conflict {
                key: object.key.clone(),
                message: format!("{}: {}", refused.field, refused.message),
                hint: refused.hint,
            }));
        }
        let mut object = Object::clone(object);
        self.address(plan, &mut object)?;
        let key = object.key.clone();
        // Kubernetes counts itself, where it counts.
        let counted = object
            .metadata
            .generation
            .filter(|_| *origin == Origin::Kubernetes);
        let dated = object
            .metadata
            .created
            .filter(|_| *origin == Origin::Kubernetes);
        let same = |old: &Entry| {
            old.object.says_the_same(&object)
                && old.origin == *origin
                && counted.is_none_or(|n| old.object.metadata.generation == Some(n))
                && dated.is_none_or(|at| old.object.metadata.created == Some(at))
                && old.object.metadata.uid == object.metadata.uid
        };
        let action = match &old {
            None => Action::Created,
            Some(old) if same(old) => Action::Unchanged,
            Some(_) => Action::Configured,
        };
        plan.applied.actions.push((key.clone(), action));
        object.metadata.created = dated
            .or_else(|| old.as_ref().and_then(|o| o.object.metadata.created))
            .or_else(|| Some(now()));
        let generation = old.as_ref().and_then(|o| o.object.metadata.generation);
        if action == Action::Unchanged {
            let old_metadata = old.map(|o| o.object.metadata.clone()).unwrap_or_default();
            object.metadata.generation = generation;
            object.metadata.resource_version = old_metadata.resource_version;
            let entry = Entry {
                object: Arc::new(object),
                origin: origin.clone(),
            };
            plan.moved.push((key, entry));
            return Ok(());
        }
        plan.version += 1;
        let respecified = old.as_ref().is_none_or(|o| o.object.spec != object.spec);
        let next = generation.unwrap_or(0) + u64::from(respecified || generation.is_none());
        object.metadata.generation = counted.or(Some(next));
        object.metadata.resource_version = Some(plan.version.to_string());
        let entry = Entry {
            object: Arc::new(object),
            origin: origin.clone(),
        };
        plan.objects.insert(key, Some(entry));
        Ok(())
    }

    /// Gives a service without addresses its own; keeps those that were asked for from being
    /// given to another.
    fn address(&mut self, plan: &mut Plan, object: &mut Object) -> Result<(), ApplyError> {
        let (written, field) = match &object.spec {
            Spec::Service(spec) if !spec.is_headless() => (spec.addresses(), "clusterIP"),
            Spec::ServiceImport(spec) if !spec.is_headless() => (spec.addresses(), "ips"),
            _ => return Ok(()),
        };
        let Some(owner) = owner_of(&object.key) else {
            return Ok(());
        };
        let had = self.services.place(&owner);
        if let Some(place) = written.iter().find_map(|a| Pool::Services.place_of(*a)) {
            if !self.services.reserve(&owner, place) {
                let (v4, _) = Pool::Services.at(place);
                return Err(ApplyError::Conflict(Conflict {
                    key: object.key.clone(),
                    message: format!("spec.{field}: {v4} belongs to another service"),
                    hint: format!("leave {field} out to have one chosen"),
                }));
            }
            if had != Some(place) {
                plan.allotted.push((owner, had));
            }
            return Ok(());
        }
        if !written.is_empty() {
            return Ok(());
        }
        let place = self.services.allot(Pool::Services, &owner)?;
        if had.is_none() {
            plan.allotted.push((owner, None));
        }
        let (v4, v6) = Pool::Services.at(place);
        let both = vec![v4.to_string(), v6.to_string()];
        match &mut object.spec {
            Spec::Service(spec) => {
                spec.cluster_ip = Some(v4.to_string());
                spec.cluster_ips = both;
            }
            Spec::ServiceImport(spec) => spec.ips = both,
            _ => {}
        }
        Ok(())
    }

    fn undo(&mut self, plan: &Plan) {
        for (owner, had) in plan.allotted.iter().rev() {
            self.services.release(owner);
            if let Some(place) = had {
                self.services.restore(owner.clone(), *place);
            }
        }
    }

    async fn commit(&mut self, plan: &Plan, set: ChangeSet) -> Result<(), ApplyError> {
        let at = now();
        let mut rows = Vec::with_capacity(plan.objects.len());
        for (key, entry) in &plan.objects {
            let row = entry
                .as_ref()
                .map(|e| row(key, e))
                .transpose()
                .map_err(|error| {
                    ApplyError::Store(Arc::new(StoreError::Failed {
                        path: self.shared.store.path().to_owned(),
                        source: rusqlite::Error::ToSqlConversionFailure(Box::new(error)),
                    }))
                })?;
            let place = owner_of(key).and_then(|owner| self.services.place(&owner));
            rows.push((key.clone(), row, place));
        }
        // By key, as the plan has them.
        let generation_of = |rows: &[(ObjectKey, Option<Stored>, Option<u32>)], key: &ObjectKey| {
            let at = rows.binary_search_by(|(k, ..)| k.cmp(key)).ok()?;
            rows[at].1.as_ref().map(|row| row.generation)
        };
        let actions: Vec<_> = plan
            .applied
            .actions
            .iter()
            .filter(|(_, action)| *action != Action::Unchanged)
            .cloned()
            .collect();
        let version = plan.version;
        self.shared
            .store
            .write(move |t| {
                store::object::set_version(t, version)?;
                for (key, row, place) in &rows {
                    write_row(t, key, row.as_ref(), *place)?;
                }
                for (key, action) in &actions {
                    let generation = generation_of(&rows, key);
                    store::object::audit(t, &entry_of(at, &set.who, key, *action, generation))?;
                }
                set.also.iter().try_for_each(|also| write_also(t, also))
            })
            .await
            .map_err(|error| match error {
                StoreError::Failed {
                    source: rusqlite::Error::StatementChangedRows(0),
                    ..
                } => ApplyError::TokenSpent,
                other => ApplyError::Store(Arc::new(other)),
            })
    }

    /// Shows what was committed to readers, then to proxies.
    fn publish(&mut self, plan: Plan) -> Applied {
        self.version = plan.version;
        let mut changes = Vec::with_capacity(plan.objects.len());
        {
            let mut objects = self
                .shared
                .objects
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            for (key, entry) in plan.moved {
                objects.insert(key, entry);
            }
            for (key, entry) in plan.objects {
                if let Some(entry) = entry {
                    changes.push(config::translate::Change::Put(Arc::clone(&entry.object)));
                    objects.insert(key, entry);
                } else {
                    objects.remove(&key);
                    if let Some(owner) = owner_of(&key) {
                        self.services.release(&owner);
                    }
                    changes.push(config::translate::Change::Delete(key));
                }
            }
        }
        let mut applied = plan.applied;
        if !changes.is_empty() {
            applied.warnings = aside(|| self.shared.distribution.apply(changes));
        }
        self.shared.revision.send_modify(|n| *n += 1);
        applied
    }
}

/// A set that names a resource version changes that version and no later one.
fn fresh(object: &Object, old: Option<&Entry>) -> Result<(), Conflict> {
    let Some(wanted) = &object.metadata.resource_version else {
        return Ok(());
    };
    let current = old.and_then(|o| o.object.metadata.resource_version.as_ref());
    if current.is_none_or(|current| current == wanted) {
        return Ok(());
    }
    Err(Conflict {
        key: object.key.clone(),
        message: "it was changed since it was read".to_owned(),
        hint: "read it again and repeat the change, or leave out metadata.resourceVersion to overwrite it"
            .to_owned(),
    })
}

fn row(key: &ObjectKey, entry: &Entry) -> serde_json::Result<Stored> {
    let metadata = &entry.object.metadata;
    Ok(Stored {
        kind: key.kind.as_str().to_owned(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        generation: metadata.generation.unwrap_or(1),
        created: metadata.created.unwrap_or(0),
        origin: entry.origin.to_text(),
        json: serde_json::to_string(&*entry.object)?,
        resource_version: metadata
            .resource_version
            .as_deref()
            .and_then(|v| v.parse().ok())
            .unwrap_or(0),
    })
}

fn write_row(
    t: &rusqlite::Transaction<'_>,
    key: &ObjectKey,
    row: Option<&Stored>,
    place: Option<u32>,
) -> rusqlite::Result<()> {
    let owner = owner_of(key);
    let pool = Pool::Services.as_str();
    if let Some(row) = row {
        store::object::put(t, row)?;
        return match (owner, place) {
            (Some(owner), Some(place)) => store::object::allot(t, pool, &owner, place),
            _ => Ok(()),
        };
    }
    store::object::delete(t, key.kind.as_str(), &key.namespace, &key.name)?;
    match owner {
        Some(owner) => store::object::release(t, pool, &owner),
        None => Ok(()),
    }
}

/// Whose addresses an object's are, if it is one that has some.
fn owner_of(key: &ObjectKey) -> Option<String> {
    match key.kind {
        ObjectKind::Service | ObjectKind::ServiceImport => {
            Some(key.service_name().ok()?.to_string())
        }
        _ => None,
    }
}

fn write_also(t: &rusqlite::Transaction<'_>, also: &Also) -> rusqlite::Result<()> {
    match also {
        Also::Lease { lease, place } => {
            store::lease::put(t, lease)?;
            match place {
                Some(place) => {
                    store::object::allot(t, Pool::Workloads.as_str(), &lease.workload, *place)
                }
                None => Ok(()),
            }
        }
        Also::EndLease(workload) => {
            store::lease::delete(t, workload)?;
            store::object::release(t, Pool::Workloads.as_str(), workload)
        }
        Also::Token(token) => store::token::add(t, token),
        Also::Spend { id, by, now } => {
            if store::token::spend(t, id, *now, by)? {
                Ok(())
            } else {
                // Rolls everything back; `commit` turns it into `TokenSpent`.
                Err(rusqlite::Error::StatementChangedRows(0))
            }
        }
    }
}

fn entry_of(
    at: u64,
    who: &str,
    key: &ObjectKey,
    action: Action,
    generation: Option<u64>,
) -> AuditEntry {
    AuditEntry {
        at,
        who: who.to_owned(),
        action: action.as_str().to_owned(),
        kind: key.kind.as_str().to_owned(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        generation: generation.unwrap_or(0),
    }
}
