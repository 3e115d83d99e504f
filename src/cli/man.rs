//! `tunproof man`: the manual's pages, one a command.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use clap::Command;
use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::Roff;
use clap_mangen::roff::roman;

use crate::cli;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::prove::Ended;

const EXAMPLES: &str = "\
Examples:
  tunproof man verify | man -l -
      one page, read at once
  tunproof man --dir /usr/local/share/man/man1
      all of them, written: `man tunproof-lab-break`";

const ENVIRONMENT: &str = "\
TUNPROOF_AGENT is the program that is started on hosts reached through `via`, in place of `tunproof`.

NO_COLOR, if set, keeps colours out of reports.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The command whose page is printed, such as `lab break`; without it tunproof's own
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Vec<String>,
    /// Write the pages of all commands into DIR, which must exist, instead
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

pub(super) fn main(arguments: &Arguments) -> Result<Ended, Failure> {
    match &arguments.dir {
        Some(dir) => write(dir)?,
        None => output::print(&page(&named(&arguments.command)?))?,
    }
    Ok(Ended::Said)
}

fn write(dir: &Path) -> Result<(), Failure> {
    for command in commands(&root()) {
        let path = dir.join(file_name(&command));
        fs::write(&path, page(&command)).map_err(|source| Failure::Write {
            what: format!("`{}`", path.display()),
            source,
        })?;
    }
    Ok(())
}

/// The whole tree, with the names that pages have.
fn root() -> Command {
    let mut root = cli::Arguments::command().disable_help_subcommand(true);
    root.build();
    root
}

/// A command and all below it that people may use.
fn commands(command: &Command) -> Vec<Command> {
    let below = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    let mut all = vec![command.clone()];
    all.extend(below.flat_map(commands));
    all
}

fn named(words: &[String]) -> Result<Command, Failure> {
    let mut command = root();
    for word in words {
        let found = command.find_subcommand(word).cloned();
        command = found.ok_or_else(|| Failure::UnknownCommand {
            name: words.join(" ").escape_debug().to_string(),
        })?;
    }
    Ok(command)
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn file_name(command: &Command) -> String {
    format!("{}.1", name(command))
}

/// What one of the library's sections is written by.
type Section = fn(&Man, &mut dyn std::io::Write) -> std::io::Result<()>;

fn page(command: &Command) -> String {
    let man = Man::new(command.clone())
        .source(concat!("tunproof ", env!("CARGO_PKG_VERSION")))
        .manual("tunproof");
    let mut sections: Vec<Section> = vec![
        Man::render_title,
        Man::render_name_section,
        Man::render_synopsis_section,
        Man::render_description_section,
    ];
    if command
        .get_arguments()
        .any(|argument| !argument.is_hide_set())
    {
        sections.push(Man::render_options_section);
    }
    if command.has_subcommands() {
        sections.push(Man::render_subcommands_section);
    }
    let mut text = Vec::new();
    for section in sections {
        section(&man, &mut text).expect("a vector takes all");
    }
    let mut text = String::from_utf8(text).expect("help is UTF-8");
    text.push_str(&own_sections(command).render());
    text
}

/// What `--help` says below its options, the environment, and where to read on.
fn own_sections(command: &Command) -> Roff {
    let mut roff = Roff::new();
    let help = command.get_after_help().map(ToString::to_string);
    let help = help.unwrap_or_default();
    let (status, notes): (Vec<_>, Vec<_>) = help
        .split("\n\n")
        .filter(|paragraph| !paragraph.is_empty())
        .partition(|paragraph| paragraph.starts_with(EXIT_STATUS));
    section(&mut roff, "NOTES AND EXAMPLES", &notes);
    let status: Vec<_> = status
        .iter()
        .map(|text| &text[EXIT_STATUS.len()..])
        .collect();
    section(&mut roff, "EXIT STATUS", &status);
    let is_root = name(command) == "tunproof";
    if is_root {
        section(
            &mut roff,
            "ENVIRONMENT",
            &ENVIRONMENT.split("\n\n").collect::<Vec<_>>(),
        );
    }
    let others = match name(command).rsplit_once('-') {
        None => "ip(8), ipvsadm(8), tcpdump(8), traceroute(8)".to_owned(),
        Some((above, _)) => format!("{above}(1)"),
    };
    section(&mut roff, "SEE ALSO", &[&others]);
    roff
}

const EXIT_STATUS: &str = "Exit status: ";

/// Paragraphs: lines that begin with a space stand for themselves, as in `--help`.
fn section(roff: &mut Roff, title: &str, paragraphs: &[&str]) {
    if paragraphs.is_empty() {
        return;
    }
    roff.control("SH", [title]);
    for (number, paragraph) in paragraphs.iter().enumerate() {
        if number > 0 {
            roff.control("PP", []);
        }
        let mut is_set = false;
        for line in paragraph.lines() {
            let as_it_is = line.starts_with(' ');
            if as_it_is != is_set {
                roff.control(if as_it_is { "nf" } else { "fi" }, []);
                is_set = as_it_is;
            }
            roff.text([roman(line)]);
        }
        if is_set {
            roff.control("fi", []);
        }
    }
}

#[cfg(test)]
pub(in crate::cli) mod tests {
    use std::process;

    use super::*;

    /// Every command that people may use.
    pub(in crate::cli) fn every_command() -> Vec<Command> {
        commands(&root())
    }

    #[test]
    fn every_command_has_a_page_with_all_its_options() {
        let commands = every_command();
        let named: Vec<_> = commands.iter().map(file_name).collect();
        for expected in [
            "tunproof.1",
            "tunproof-verify.1",
            "tunproof-lab-break.1",
            "tunproof-suite-check.1",
        ] {
            assert!(named.iter().any(|name| name == expected), "{named:?}");
        }
        for command in &commands {
            let page = page(command).replace("\\-", "-");
            for title in ["NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"] {
                assert!(
                    page.contains(&format!(".SH {title}"))
                        || page.contains(&format!(".SH \"{title}\"")),
                    "{page}"
                );
            }
            for argument in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let word = match argument.get_long() {
                    Some(long) => format!("--{long}"),
                    None => argument.get_value_names().unwrap()[0].to_string(),
                };
                assert!(page.contains(&word), "{}: {word}", name(command));
            }
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                assert!(page.contains(&format!("{}(1)", name(sub))), "{page}");
            }
        }
    }

    #[test]
    fn groff_has_nothing_to_complain_of() {
        for command in every_command() {
            let file = format!("{}-{}", process::id(), file_name(&command));
            let file = std::env::temp_dir().join(file);
            fs::write(&file, page(&command)).unwrap();
            let output = process::Command::new("groff")
                .args(["-man", "-Kutf8", "-Tutf8", "-ww", "-z"])
                .arg(&file)
                .output();
            fs::remove_file(&file).unwrap();
            let output = output.expect("this test needs `groff` (apt-get install groff-base)");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && said.is_empty(),
                "{}: {said}",
                name(&command)
            );
        }
    }

    #[test]
    fn an_unknown_command_has_no_page() {
        assert!(named(&["lab".to_owned(), "break".to_owned()]).is_ok());
        let error = named(&["lab".to_owned(), "mock".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "there is no command `lab mock`");
    }
}
