//! The config's document: its text with edits put onto it. What no edit is about stays as it is written, comments and order included.

use super::edit::{BackendState, Edit, Written, as_in_commands, written_address};
use serde_json::Value as Json;
use std::net::{IpAddr, SocketAddr};
use thiserror::Error;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

/// Keys whose values are secrets, with the table that they are in.
const SECRETS: [(Option<&str>, &str); 3] =
    [(None, "secret"), (Some("dns"), "cookie_secret"), (Some("dns"), "cookie_secret_before")];

/// Why an edit can't be put onto a document.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum Misfit {
    #[error("there is no service `{service}`; the config has: {}", known.join(", "))]
    NoService { service: String, known: Vec<String> },
    #[error("there is a service `{service}` already; `lb service remove` takes it away")]
    ServiceIsThere { service: String },
    #[error("service `{service}` has no backend {backend}; it has: {}", known.join(", "))]
    NoBackend { service: String, backend: String, known: Vec<String> },
    #[error("service `{service}` has backend {backend} already; `lb backend weight` changes its weight")]
    BackendIsThere { service: String, backend: String },
    #[error("no service is at {address}; the config has services at: {}", known.join(", "))]
    NothingAt { address: IpAddr, known: Vec<String> },
    #[error("`{key}` is null, and a config has no such value; leave it out")]
    Null { key: String },
    #[error("`{key}` is no list of tables in the config; write [[{key}]]")]
    NoList { key: &'static str },
    #[error("not TOML")]
    NotToml,
    #[error("the config would be wrong with it: {0}")]
    Wrong(String),
}

impl Misfit {
    /// Whether what it names is not there.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoService { .. } | Self::NoBackend { .. } | Self::NothingAt { .. })
    }
}

/// A document that edits are put onto.
pub struct Document(DocumentMut);

impl Document {
    /// Reads a text.
    pub fn read(text: &str) -> Result<Self, Misfit> {
        text.parse().map(Self).map_err(|_| Misfit::NotToml)
    }

    /// Its text.
    pub fn text(&self) -> String {
        self.0.to_string()
    }

    /// Puts an edit onto it, and says whether that changes anything. An edit that does not fit changes nothing.
    pub fn edit(&mut self, edit: &Edit) -> Result<bool, Misfit> {
        match edit {
            Edit::AddService { service } => self.add_service(service)?,
            Edit::RemoveService { service } => {
                let number = self.number(service)?;
                remove(self.0.get_mut("service"), number);
            }
            Edit::AddBackend { service, backend } => self.add_backend(service, backend)?,
            Edit::RemoveBackend { service, backend } => {
                let (service, number) = self.backend(service, *backend)?;
                remove(service.get_mut("backend"), number);
            }
            Edit::SetWeight { service, backend, weight } => {
                let backend = self.backend_table(service, *backend)?;
                let before = backend.get("weight").and_then(Item::as_integer).unwrap_or(1);
                if before == *weight {
                    return Ok(false);
                }
                set(backend, "weight", *weight);
            }
            Edit::SetState { service, backend, state, drain_seconds } => {
                return Ok(set_state(self.backend_table(service, *backend)?, *state, *drain_seconds));
            }
            Edit::SetClaim { address, claim } => return self.set_claim(*address, *claim),
        }
        Ok(true)
    }

    /// Takes out secrets that are written in the document itself, and says which ones they were.
    pub fn redact(&mut self) -> Vec<&'static str> {
        let taken = SECRETS.into_iter().filter(|(place, key)| {
            let table: Option<&mut dyn TableLike> = match place {
                None => Some(self.0.as_table_mut()),
                Some(place) => self.0.get_mut(place).and_then(Item::as_table_like_mut),
            };
            table.is_some_and(|table| table.remove(key).is_some())
        });
        taken.map(|(_, key)| key).collect()
    }

    fn services(&mut self) -> Vec<&mut dyn TableLike> {
        tables(self.0.get_mut("service"))
    }

    fn names(&mut self) -> Vec<String> {
        self.services().into_iter().filter_map(|service| Some(string(service, "name")?.to_owned())).collect()
    }

    fn number(&mut self, name: &str) -> Result<usize, Misfit> {
        let number = self.services().into_iter().position(|service| string(service, "name") == Some(name));
        number.ok_or_else(|| Misfit::NoService { service: name.into(), known: self.names() })
    }

    fn service(&mut self, name: &str) -> Result<&mut dyn TableLike, Misfit> {
        let number = self.number(name)?;
        self.services().into_iter().nth(number).ok_or(Misfit::NoList { key: "service" })
    }

    fn add_service(&mut self, written: &Written) -> Result<(), Misfit> {
        if let Some(name) = written.get("name").and_then(Json::as_str)
            && self.number(name).is_ok()
        {
            return Err(Misfit::ServiceIsThere { service: name.into() });
        }
        push(self.0.as_table_mut(), "service", written)
    }

    fn add_backend(&mut self, name: &str, written: &Written) -> Result<(), Misfit> {
        let service = self.service(name)?;
        let of_service = port_of(service, 0);
        let port = written.get("port").and_then(Json::as_i64).unwrap_or(of_service);
        if let Some(address) = written_address(written)
            && let Some((_, backend)) = members(service).into_iter().find(|(member, _)| *member == (address, port))
        {
            return Err(Misfit::BackendIsThere { service: name.into(), backend });
        }
        push(service, "backend", written)
    }

    /// A backend's service, and its number there.
    fn backend(&mut self, name: &str, backend: SocketAddr) -> Result<(&mut dyn TableLike, usize), Misfit> {
        let service = self.service(name)?;
        let members = members(service);
        let wanted = (backend.ip(), i64::from(backend.port()));
        match members.iter().position(|(member, _)| *member == wanted) {
            Some(number) => Ok((service, number)),
            None => Err(Misfit::NoBackend {
                service: name.into(),
                backend: as_in_commands(backend),
                known: members.into_iter().map(|(_, text)| text).collect(),
            }),
        }
    }

    fn backend_table(&mut self, name: &str, backend: SocketAddr) -> Result<&mut dyn TableLike, Misfit> {
        let (service, number) = self.backend(name, backend)?;
        tables(service.get_mut("backend")).into_iter().nth(number).ok_or(Misfit::NoList { key: "service.backend" })
    }

    fn set_claim(&mut self, address: IpAddr, claim: bool) -> Result<bool, Misfit> {
        let (mut found, mut changed, mut known) = (false, false, Vec::new());
        for service in self.services() {
            let at = string(service, "address").and_then(|address| address.parse::<IpAddr>().ok());
            known.extend(at.map(|at| at.to_string()));
            if at != Some(address) {
                continue;
            }
            found = true;
            let claims = string(service, "claim") != Some("routed");
            if claims != claim {
                changed = true;
                set(service, "claim", if claim { "link" } else { "routed" });
            }
        }
        known.dedup();
        if found { Ok(changed) } else { Err(Misfit::NothingAt { address, known }) }
    }
}

fn set_state(backend: &mut dyn TableLike, state: BackendState, drain_seconds: Option<u32>) -> bool {
    let before = (string(backend, "state").map(str::to_owned), integer(backend, "drain_seconds"));
    if state == BackendState::Active {
        backend.remove("state");
    } else {
        set(backend, "state", state.word());
    }
    match drain_seconds.filter(|_| state == BackendState::Drain) {
        Some(seconds) => set(backend, "drain_seconds", i64::from(seconds)),
        None => _ = backend.remove("drain_seconds"),
    }
    let after = (string(backend, "state"), integer(backend, "drain_seconds"));
    let active = Some(BackendState::Active.word());
    (before.0.as_deref().or(active), before.1) != (after.0.or(active), after.1)
}

/// The tables of a list, however it is written.
fn tables(item: Option<&mut Item>) -> Vec<&mut dyn TableLike> {
    match item {
        Some(Item::ArrayOfTables(tables)) => tables.iter_mut().map(|table| table as &mut dyn TableLike).collect(),
        Some(Item::Value(Value::Array(array))) => {
            let tables = array.iter_mut().filter_map(Value::as_inline_table_mut);
            tables.map(|table| table as &mut dyn TableLike).collect()
        }
        _ => Vec::new(),
    }
}

fn remove(item: Option<&mut Item>, number: usize) {
    match item {
        Some(Item::ArrayOfTables(tables)) => _ = tables.remove(number),
        Some(Item::Value(Value::Array(array))) => _ = array.remove(number),
        _ => (),
    }
}

fn push(parent: &mut dyn TableLike, key: &'static str, written: &Written) -> Result<(), Misfit> {
    match parent.get_mut(key) {
        None => {
            let mut tables = ArrayOfTables::new();
            tables.push(table(written)?);
            parent.insert(key, Item::ArrayOfTables(tables));
        }
        Some(Item::ArrayOfTables(tables)) => tables.push(table(written)?),
        Some(Item::Value(Value::Array(array))) => array.push(inline(written)?),
        Some(_) => return Err(Misfit::NoList { key }),
    }
    Ok(())
}

/// Backends of a service as written: who they are, and as commands say it.
fn members(service: &mut dyn TableLike) -> Vec<((IpAddr, i64), String)> {
    let of_service = port_of(service, 0);
    let members = tables(service.get_mut("backend")).into_iter().map(|backend| {
        let address = string(backend, "address")?.parse::<IpAddr>().ok()?;
        let port = port_of(backend, of_service);
        let text = match (port, address) {
            (0, _) => address.to_string(),
            (_, IpAddr::V4(_)) => format!("{address}:{port}"),
            (_, IpAddr::V6(_)) => format!("[{address}]:{port}"),
        };
        Some(((address, port), text))
    });
    // What is told by no address keeps its place, and is nobody that an edit could mean.
    members.map(|member| member.unwrap_or(((IpAddr::from([0; 4]), -1), "(without an address)".into()))).collect()
}

fn port_of(table: &dyn TableLike, default: i64) -> i64 {
    integer(table, "port").unwrap_or(default)
}

fn string<'t>(table: &'t (impl TableLike + ?Sized), key: &str) -> Option<&'t str> {
    table.get(key)?.as_str()
}

fn integer(table: &(impl TableLike + ?Sized), key: &str) -> Option<i64> {
    table.get(key)?.as_integer()
}

/// Writes a value where one was, or behind the others.
fn set(table: &mut dyn TableLike, key: &str, value: impl Into<Value>) {
    let mut value = value.into();
    match table.get_mut(key) {
        Some(item) => {
            if let Some(before) = item.as_value() {
                *value.decor_mut() = before.decor().clone();
            }
            *item = Item::Value(value);
        }
        None => _ = table.insert(key, Item::Value(value)),
    }
}

/// As a table of its own, lists of tables included.
fn table(written: &Written) -> Result<Table, Misfit> {
    let mut table = Table::new();
    table.decor_mut().set_prefix("\n");
    for (key, value) in written {
        let item = match value {
            Json::Array(list) if !list.is_empty() && list.iter().all(Json::is_object) => {
                let objects = list.iter().filter_map(Json::as_object);
                let tables = objects.map(self::table).collect::<Result<Vec<_>, _>>()?;
                Item::ArrayOfTables(tables.into_iter().collect())
            }
            _ => Item::Value(self::value(key, value)?),
        };
        table.insert(key, item);
    }
    Ok(table)
}

fn inline(written: &Written) -> Result<InlineTable, Misfit> {
    let mut table = InlineTable::new();
    for (key, value) in written {
        table.insert(key, self::value(key, value)?);
    }
    Ok(table)
}

fn value(key: &str, value: &Json) -> Result<Value, Misfit> {
    Ok(match value {
        Json::Null => return Err(Misfit::Null { key: key.into() }),
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.as_f64().unwrap_or_default().into(),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(list) => {
            let values = list.iter().map(|value| self::value(key, value)).collect::<Result<Vec<_>, _>>()?;
            Value::Array(values.into_iter().collect::<Array>())
        }
        Json::Object(object) => inline(object)?.into(),
    })
}
