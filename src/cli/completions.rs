//! `tunproof completions`: what a shell completes.

use clap::Command;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::prove::Ended;

const EXAMPLES: &str = "\
Examples:
  tunproof completions bash > /etc/bash_completion.d/tunproof
  tunproof completions zsh > ~/.zfunc/_tunproof
      with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  tunproof completions fish > ~/.config/fish/completions/tunproof.fish

The Debian package brings those of bash, zsh and fish with it.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn main(arguments: &Arguments) -> Result<Ended, Failure> {
    output::print(&script(arguments.shell))?;
    Ok(Ended::Said)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    let mut command = cli::Arguments::command();
    clap_complete::generate(shell, &mut command, "tunproof", &mut script);
    let mut script = String::from_utf8(script).expect("names and help are UTF-8");
    if shell == Shell::Fish {
        fish_values(&command, &[], &mut script);
    }
    script
}

/// The values of arguments without a `--`, which the library leaves out for fish.
fn fish_values(command: &Command, above: &[&str], script: &mut String) {
    let positionals = command.get_positionals();
    let values = positionals.flat_map(|argument| argument.get_value_parser().possible_values());
    let names: Vec<_> = values
        .flatten()
        .map(|value| value.get_name().to_owned())
        .collect();
    if !names.is_empty() {
        let seen = above
            .iter()
            .map(|word| format!("__fish_seen_subcommand_from {word}"));
        let seen = seen.collect::<Vec<_>>().join("; and ");
        let names = names.join(" ");
        script.push_str(&format!(
            "complete -c tunproof -n \"{seen}\" -f -a \"{names}\"\n"
        ));
    }
    for sub in command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
    {
        let above: Vec<_> = above.iter().copied().chain([sub.get_name()]).collect();
        fish_values(sub, &above, script);
    }
}

#[cfg(test)]
mod tests {
    use std::process;

    use clap::ValueEnum;

    use super::*;
    use crate::cli::man::tests::every_command;
    use crate::lab::FAULTS;
    use crate::lab::Node;
    use crate::verdict::Code;

    #[test]
    fn every_shell_knows_every_command_and_option() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for command in every_command() {
                let words = command.get_arguments().filter_map(clap::Arg::get_long);
                for word in words.chain([command.get_name()]) {
                    assert!(script.contains(word), "{shell}: {word}");
                }
            }
        }
    }

    /// What bash offers after these words, in a folder with one file, `path.toml`.
    fn offered(words: &[&str]) -> Vec<String> {
        let folder = std::env::temp_dir().join(format!(
            "tunproof-complete-{}-{}",
            process::id(),
            words.join("-").replace('/', "")
        ));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("path.toml"), "").unwrap();
        let file = folder.join(".script");
        std::fs::write(&file, script(Shell::Bash)).unwrap();
        // As readline does it, with `-o default` for its last resort.
        let ask = "source \"$0\"; COMP_WORDS=(tunproof \"$@\"); COMP_CWORD=$#; cur=${*: -1}; \
                   before=$(($# - 1)); prev=${COMP_WORDS[$before]}; \
                   compopt() { :; }; _tunproof tunproof \"$cur\" \"$prev\"; \
                   [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- \"$cur\")); \
                   printf '%s\\n' \"${COMPREPLY[@]}\"";
        let output = process::Command::new("bash")
            .args(["--norc", "-c", ask])
            .arg(&file)
            .args(words)
            .current_dir(&folder)
            .output()
            .expect("this test needs bash");
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn fish_has_the_values_of_arguments() {
        let script = script(Shell::Fish);
        let seen = "-n \"__fish_seen_subcommand_from lab; and __fish_seen_subcommand_from break\"";
        let line = script
            .lines()
            .find(|line| line.contains(seen) && line.contains(" -a "));
        let line = line.unwrap_or_else(|| panic!("{script}"));
        for fault in FAULTS {
            assert!(line.contains(fault.name), "{line}");
        }
    }

    fn has(offered: &[String], wanted: &[&str]) {
        for wanted in wanted {
            assert!(offered.iter().any(|word| word == wanted), "{offered:?}");
        }
    }

    #[test]
    fn bash_offers_faults_codes_hosts_formats_and_files() {
        let faults: Vec<_> = FAULTS.iter().map(|fault| fault.name).collect();
        has(&offered(&["lab", "break", ""]), &faults);
        has(&offered(&["lab", "--name", "x", "break", ""]), &faults);
        let codes: Vec<_> = Code::ALL.iter().map(|code| code.id()).collect();
        has(&offered(&["explain", ""]), &codes);
        has(&offered(&["lab", "exec", ""]), &Node::ALL.map(Node::name));
        let formats = ["text", "json", "junit", "tap", "html"];
        assert_eq!(offered(&["verify", "x", "--format", ""]), formats);
        assert_eq!(offered(&["explain", "rp-"]), ["rp-filter-drops"]);
        for words in [
            &["verify", "p"][..],
            &["run", "q1-unique-source", "--path", "p"],
            &["verify", "path.toml", "--pcap", "p"],
            &["sweep", "p"],
        ] {
            assert_eq!(offered(words), ["path.toml"], "{words:?}");
        }
    }
}
