//! System events on which Windows starts or stops a service.

/// A system event on which the Service Control Manager starts a service, or stops it
/// ([`Trigger::stops`]): `SERVICE_TRIGGER`.
///
/// A service with triggers is usually [`Start::Manual`](crate::Start::Manual). These calls have not
/// been tested on a real Windows system.
///
/// ```
/// use mainstay::{Start, Trigger};
///
/// // Started by the first client of the pipe, stopped without a network.
/// let orders = mainstay::service("orders").start(Start::Manual).windows(|windows| {
///     windows
///         .trigger(Trigger::named_pipe("orders"))
///         .trigger(Trigger::network_down().stops())
/// });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "nothing changes before the definition has it"]
pub struct Trigger {
    /// The trigger type, `SERVICE_TRIGGER_TYPE_…`.
    pub(crate) kind: u32,
    /// The GUID in the order of its text form, most significant digit first.
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

    /// Triggers when the first IP address becomes available.
    ///
    /// ```
    /// let trigger = mainstay::Trigger::network_up();
    /// ```
    pub fn network_up() -> Self {
        Self::new(2, 0x4f27f2de_14e2_430b_a549_7cd48cbc8245)
    }

    /// Triggers when the last IP address is removed.
    ///
    /// ```
    /// let trigger = mainstay::Trigger::network_down();
    /// ```
    pub fn network_down() -> Self {
        Self::new(2, 0xcc4ba62a_162e_4648_847a_b6bdf993e335)
    }

    /// Triggers when the machine joins a domain.
    ///
    /// ```
    /// let trigger = mainstay::Trigger::domain_joined();
    /// ```
    pub fn domain_joined() -> Self {
        Self::new(3, 0x1ce20aba_9851_4421_9430_1ddeb766e809)
    }

    /// Triggers when the machine leaves its domain.
    ///
    /// ```
    /// let trigger = mainstay::Trigger::domain_left();
    /// ```
    pub fn domain_left() -> Self {
        Self::new(3, 0xddaf516e_58c2_4866_9574_c3b615d42ea1)
    }

    /// Triggers when a client opens this named pipe. `name` does not include `\\.\pipe\`.
    ///
    /// ```
    /// let trigger = mainstay::Trigger::named_pipe("orders");
    /// ```
    pub fn named_pipe(name: impl Into<String>) -> Self {
        let data = vec![name.into()];
        Self {
            data,
            ..Self::new(6, 0x1f81d131_3fac_4537_9e0c_7e7b0c2f4b55)
        }
    }

    /// Triggers when a device of this interface class (a GUID) arrives or is present at boot.
    ///
    /// ```
    /// let trigger = mainstay::Trigger::device(0x53f56307_b6bf_11d0_94f2_00a0c91efb8b);
    /// ```
    pub fn device(interface_class: u128) -> Self {
        Self::new(1, interface_class)
    }

    /// Triggers on an event of this Event Tracing for Windows provider (a GUID).
    ///
    /// ```
    /// let trigger = mainstay::Trigger::provider(0xc5bffe2e_9d87_4d1d_b3ff_9d4a3b7b1d6b);
    /// ```
    pub fn provider(provider: u128) -> Self {
        Self::new(20, provider)
    }

    /// Makes the trigger stop the service instead of starting it.
    ///
    /// ```
    /// let trigger = mainstay::Trigger::network_down().stops();
    /// ```
    pub fn stops(self) -> Self {
        Self {
            stops: true,
            ..self
        }
    }
}
