//! Programs that contain several services.

use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;

use crate::run::exit_code_of;
use crate::service::Body;
use crate::verbs::{describe_failure, install, say, shown, usage};
use crate::{Context, Definition, Error, ErrorKind, Exit, Logger, Manager, Scope, Verb};

/// A program that contains several services. Each is installed, started, stopped and removed on its
/// own, by its name.
///
/// On Windows, the services run in one process (`SERVICE_WIN32_SHARE_PROCESS`), which starts with
/// the first service and ends with the last one. They share its account, environment, working
/// directory, log directory, and fate: a panic ends one service, but an abort, a crash or a service
/// that does not stop in time ends the process and all services in it. Recovery actions follow for
/// each.
///
/// On Unix, every service has a process of its own, which the manager starts with the arguments
/// `run NAME`.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// use mainstay::{Account, Context, Control, Exit, Program};
///
/// fn main() -> ExitCode {
///     let account = || Account::LocalService;
///     Program::new("shop")
///         .service(mainstay::service("shop-web").account(account()), serve)
///         .service(mainstay::service("shop-mail").account(account()), serve)
///         .main()
/// }
///
/// fn serve(mut context: Context) -> Result<(), Exit> {
///     while !matches!(context.wait(), Control::Stop(_)) {}
///     Ok(())
/// }
/// ```
#[must_use = "nothing happens before `main`"]
pub struct Program {
    name: String,
    services: Vec<(Definition, Body)>,
}

impl Program {
    /// Creates a program without services. The name is shown in the help. On Windows, the output of
    /// the services goes to `%ProgramData%\NAME\logs`.
    ///
    /// ```
    /// let shop = mainstay::Program::new("shop");
    /// assert!(shop.definitions().is_empty());
    /// ```
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            services: Vec::new(),
        }
    }

    /// Adds a service. `run` is called at each start; after a stop, that may be in the same
    /// process. The program sets the arguments of the definition.
    ///
    /// ```
    /// use mainstay::{Context, Control, Exit, Program};
    ///
    /// fn mail(mut context: Context) -> Result<(), Exit> {
    ///     while !matches!(context.wait(), Control::Stop(_)) {}
    ///     Ok(())
    /// }
    ///
    /// let shop = Program::new("shop").service(mainstay::service("shop-mail"), mail);
    /// assert_eq!(shop.definitions()[0].name(), "shop-mail");
    /// ```
    pub fn service(
        mut self,
        definition: Definition,
        run: impl Fn(Context) -> Result<(), Exit> + Send + Sync + 'static,
    ) -> Self {
        self.services.push((definition, Arc::new(run)));
        self
    }

    /// Returns the services as they are installed, for [`install_all`](crate::install_all) and the
    /// methods of [`Definition`].
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let shop = mainstay::Program::new("shop");
    /// for service in shop.definitions() {
    ///     println!("{}: {}", service.name(), service.status()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn definitions(&self) -> Vec<Definition> {
        let is_shared = self.services.len() > 1;
        let installed = |definition: &Definition| {
            let mut arguments = vec![OsString::from("run")];
            if cfg!(unix) {
                arguments.push(definition.name.clone().into());
            }
            Definition {
                arguments: Some(arguments),
                shared_process: is_shared.then(|| self.name.clone()),
                ..definition.clone()
            }
        };
        let all = self.services.iter();
        all.map(|(definition, _)| installed(definition)).collect()
    }

    /// Runs the services that the manager starts, or executes the verb on the command line, as
    /// [`Definition::main`] does. Without a name after the verb, it applies to all services:
    /// `shop install`, `shop stop shop-mail`. At a terminal, `shop run NAME` runs one service in
    /// the foreground.
    ///
    /// ```no_run
    /// use std::process::ExitCode;
    ///
    /// use mainstay::{Context, Control, Exit, Program};
    ///
    /// fn main() -> ExitCode {
    ///     Program::new("shop").service(mainstay::service("shop-web"), web).main()
    /// }
    ///
    /// fn web(mut context: Context) -> Result<(), Exit> {
    ///     while !matches!(context.wait(), Control::Stop(_)) {}
    ///     Ok(())
    /// }
    /// ```
    #[must_use = "it is the exit code of the process"]
    pub fn main(self) -> ExitCode {
        if Manager::current() == Manager::WindowsScm {
            return self.serve();
        }
        let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        let is_user = arguments.first().is_some_and(|first| first == "--user");
        if is_user {
            arguments.remove(0);
        }
        let name = self.name.clone();
        let done = self.perform(is_user.then_some(Scope::User), arguments);
        done.unwrap_or_else(|error| describe_failure(&name, &error))
    }

    /// Runs the services in this process, as the Service Control Manager requests.
    fn serve(self) -> ExitCode {
        let logger = Logger::new(&self.name, Manager::WindowsScm);
        let definitions = self.definitions().into_iter();
        let services = definitions.zip(self.services.into_iter().map(|(_, body)| body));
        exit_code_of(crate::run::serve(services.collect()), &logger)
    }

    fn perform(
        self,
        scope: Option<Scope>,
        mut arguments: Vec<OsString>,
    ) -> Result<ExitCode, Error> {
        let mut definitions = self.definitions();
        let names: Vec<&str> = definitions.iter().map(|it| &*it.name).collect();
        let names = names.join(", ");
        let named = arguments.get(1).and_then(|name| {
            let mut all = definitions.iter();
            all.position(|it| *name == *it.name)
        });
        if let Some(index) = named {
            arguments.remove(1);
            definitions = vec![definitions.swap_remove(index)];
        }
        if let Some(scope) = scope {
            let all = definitions.into_iter();
            definitions = all.map(|it| it.scope(scope)).collect();
        }
        let unnamed = |verb: &str| {
            let what = format!("{verb} requires the name of a service: {names}");
            Error::new(ErrorKind::Usage, what)
        };
        match Verb::parse(arguments.iter().cloned())? {
            Verb::Run => {
                let service = named.and_then(|index| self.services.into_iter().nth(index));
                let (definition, body) = service.ok_or_else(|| unnamed("run"))?;
                arguments.remove(0);
                Ok(definition.run_with(move |context| body(context), arguments))
            }
            Verb::Start(extra) if named.is_none() && !extra.is_empty() => {
                Err(unnamed("start with arguments"))
            }
            Verb::Help => {
                let list = definitions.iter().map(|it| {
                    let about = it.description.as_deref().unwrap_or_default();
                    format!("  {}    {about}", it.name).trim_end().to_owned() + "\n"
                });
                let list: String = list.collect();
                let usage = usage(&self.name);
                say(&format!(
                    "{usage}\nservices, after the verb:\n{}",
                    list.trim_end()
                ))?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Install(options) => {
                install(&mut definitions, options)?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Status if named.is_none() => {
                let mut code = ExitCode::SUCCESS;
                for definition in definitions {
                    let status = definition.status()?;
                    say(&format!("{}: {status}", definition.name))?;
                    let shown = shown(status);
                    if shown != ExitCode::SUCCESS {
                        code = shown;
                    }
                }
                Ok(code)
            }
            verb => {
                // A service is stopped before those that it may need.
                if matches!(verb, Verb::Stop | Verb::Uninstall) {
                    definitions.reverse();
                }
                let all = definitions.into_iter();
                let done: Vec<_> = all.map(|it| it.perform(verb.clone())).collect();
                let done: Result<Vec<_>, _> = done.into_iter().collect();
                Ok(done?.into_iter().next().unwrap_or_default())
            }
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<_> = self.services.iter().map(|(it, _)| &it.name).collect();
        f.debug_struct("Program")
            .field("name", &self.name)
            .field("services", &services)
            .finish()
    }
}
