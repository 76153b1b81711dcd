//! What has to be folded anew: of ten thousand services, a change of health or of a way concerns a few.

use crate::model::{
    desired::Conditions,
    intent::{Intent, Service, Target},
};
use lb_common::tables::Endpoint;
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

/// Finds the services of an intent.
#[derive(Debug, Default)]
pub struct Index {
    by_endpoint: HashMap<Endpoint, usize>,
    by_target: HashMap<Target, Vec<usize>>,
    by_address: HashMap<IpAddr, Vec<usize>>,
}

impl Index {
    /// Of this intent.
    pub fn new(intent: &Intent) -> Self {
        let mut index = Self::default();
        for (number, service) in intent.services().iter().enumerate() {
            index.by_endpoint.insert(service.endpoint, number);
            for backend in &service.backends {
                for target in backend.targets() {
                    index.by_target.entry(target.clone()).or_default().push(number);
                }
                index.by_address.entry(backend.endpoint.ip()).or_default().push(number);
            }
        }
        index
    }

    /// The services of the intent with a backend at this address.
    pub fn at<'i>(&self, address: IpAddr, intent: &'i Intent) -> impl Iterator<Item = &'i Service> {
        let numbers = self.by_address.get(&address).into_iter().flatten();
        numbers.filter_map(|number| intent.services().get(*number)).collect::<Vec<_>>().into_iter()
    }
}

/// What has to be folded anew.
#[derive(Debug, Default)]
pub struct Touched {
    any: bool,
    services: BTreeSet<usize>,
    targets: BTreeSet<Target>,
}

impl Touched {
    /// What is about no service: interfaces, and what DNS answers.
    pub fn rest(&mut self) {
        self.any = true;
    }

    /// All that goes by the health of a target.
    pub fn target(&mut self, target: &Target, index: &Index, conditions: &Conditions) {
        self.rest();
        self.targets.insert(target.clone());
        self.services.extend(index.by_target.get(target).into_iter().flatten());
        for (key, _) in conditions.leaving.iter().filter(|(_, leaving)| leaving.target.as_ref() == Some(target)) {
            self.service(&key.service, index);
        }
    }

    /// All that goes by the way to an address.
    pub fn address(&mut self, address: IpAddr, index: &Index, conditions: &Conditions) {
        self.rest();
        self.services.extend(index.by_address.get(&address).into_iter().flatten());
        for key in conditions.leaving.keys().filter(|key| key.own.ip() == address) {
            self.service(&key.service, index);
        }
    }

    /// A service.
    pub fn service(&mut self, endpoint: &Endpoint, index: &Index) {
        self.rest();
        self.services.extend(index.by_endpoint.get(endpoint));
    }

    /// Every service.
    pub fn all(&mut self, intent: &Intent) {
        self.rest();
        self.services.extend(0..intent.services().len());
    }

    /// Whether there is anything.
    pub fn is_any(&self) -> bool {
        self.any
    }

    /// Forgets whose health it was, and says it.
    pub fn take_targets(&mut self) -> BTreeSet<Target> {
        std::mem::take(&mut self.targets)
    }

    /// Forgets it and says which services it was.
    pub fn take<'i>(&mut self, intent: &'i Intent) -> Vec<&'i Service> {
        self.any = false;
        std::mem::take(&mut self.services).into_iter().filter_map(|number| intent.services().get(number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        model::{backends::BackendKey, intent::Mode, leaving::Leaving},
    };

    const TEXT: &str = "interfaces = [\"lo\"]\nsecret = \"0123456789abcdef\"\n[check.own]\nport = 9\n";

    /// Three services; the last two share a server, which has a check of its own in the last.
    fn intent() -> Intent {
        let mut text = String::from(TEXT);
        for (service, server, more) in [(0, 1, ""), (1, 2, ""), (2, 2, "check = \"own\"\n")] {
            text += &format!(
                "[[service]]\nname = \"s{service}\"\naddress = \"192.0.2.{service}\"\nport = 80\nmode = \"dsr\"\n{more}\
                 [[service.backend]]\naddress = \"10.0.0.{server}\"\n"
            );
        }
        Intent::new(&Config::parse(&text).unwrap()).unwrap()
    }

    fn names(intent: &Intent, touch: impl FnOnce(&mut Touched, &Index)) -> Vec<&str> {
        let mut touched = Touched::default();
        touch(&mut touched, &Index::new(intent));
        assert!(touched.is_any());
        let names = touched.take(intent).into_iter().map(|service| service.name.as_str()).collect();
        assert!(!touched.is_any() && touched.take(intent).is_empty());
        names
    }

    #[test]
    fn a_change_touches_whom_it_concerns() {
        let intent = intent();
        let mut conditions = Conditions::default();
        let [first, second, third] = intent.services() else { panic!("{intent:?}") };
        let target = |service: &Service| service.backends[0].target.clone();
        assert_eq!(names(&intent, |touched, index| touched.target(&target(second), index, &conditions)), ["s1"]);
        assert_eq!(names(&intent, |touched, index| touched.target(&target(third), index, &conditions)), ["s2"]);
        let shared = target(second).address.ip();
        assert_eq!(names(&intent, |touched, index| touched.address(shared, index, &conditions)), ["s1", "s2"]);
        assert_eq!(names(&intent, |touched, index| touched.service(&first.endpoint, index)), ["s0"]);
        assert_eq!(names(&intent, |touched, _| touched.all(&intent)), ["s0", "s1", "s2"]);
        assert_eq!(names(&intent, |touched, _| touched.rest()), Vec::<&str>::new());

        // What is leaving the first service has the target and the address of the second's.
        let own = second.backends[0].endpoint;
        let key = BackendKey { service: first.endpoint, own, mode: Mode::Dsr };
        conditions.leaving.insert(key, Leaving { target: Some(target(second)), deadline: None });
        assert_eq!(names(&intent, |touched, index| touched.target(&target(second), index, &conditions)), ["s0", "s1"]);
        assert_eq!(names(&intent, |touched, index| touched.address(shared, index, &conditions)), ["s0", "s1", "s2"]);
    }
}
