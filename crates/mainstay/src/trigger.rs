//! Events of the system at which Windows starts or stops a service.

/// An event at which the Service Control Manager starts a service, or stops it ([`Trigger::stops`]): `SERVICE_TRIGGER`.
///
/// A service with triggers is usually [`Start::Manual`](crate::Start::Manual). No real Windows has seen these calls yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// `SERVICE_TRIGGER_TYPE_…`
    pub(crate) kind: u32,
    /// As it is written, most significant digit first.
    pub(crate) subtype: u128,
    pub(crate) data: Vec<String>,
    pub(crate) stops: bool,
}

impl Trigger {
    fn new(kind: u32, subtype: u128) -> Self {
        Self {
            kind,
            subtype,
            data: Vec::new(),
            stops: false,
        }
    }

    /// The first IP address is there.
    pub fn network_up() -> Self {
        Self::new(2, 0x4f27f2de_14e2_430b_a549_7cd48cbc8245)
    }

    /// The last IP address is gone.
    pub fn network_down() -> Self {
        Self::new(2, 0xcc4ba62a_162e_4648_847a_b6bdf993e335)
    }

    /// The machine joins a domain.
    pub fn domain_joined() -> Self {
        Self::new(3, 0x1ce20aba_9851_4421_9430_1ddeb766e809)
    }

    /// The machine leaves its domain.
    pub fn domain_left() -> Self {
        Self::new(3, 0xddaf516e_58c2_4866_9574_c3b615d42ea1)
    }

    /// Somebody opens this named pipe; `name` comes without `\\.\pipe\`.
    pub fn named_pipe(name: impl Into<String>) -> Self {
        let data = vec![name.into()];
        Self {
            data,
            ..Self::new(6, 0x1f81d131_3fac_4537_9e0c_7e7b0c2f4b55)
        }
    }

    /// A device of this interface class, a GUID, arrives; or it is there at boot.
    pub fn device(interface_class: u128) -> Self {
        Self::new(1, interface_class)
    }

    /// This provider of Event Tracing for Windows, a GUID, tells something.
    pub fn provider(provider: u128) -> Self {
        Self::new(20, provider)
    }

    /// The service is stopped, not started.
    #[must_use]
    pub fn stops(self) -> Self {
        Self {
            stops: true,
            ..self
        }
    }
}
