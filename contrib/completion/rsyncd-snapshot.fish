# Completes commands, options, modules and snapshots of rsyncd-snapshot in fish.
#
# Install it as /usr/share/fish/vendor_completions.d/rsyncd-snapshot.fish, or in
# ~/.config/fish/completions.
#
# The program itself is asked: `--help` lists commands and options, and the hidden command
# `complete` prints the names of modules and snapshots. So nothing here gets out of date. Names are
# shown to users who may read them, in most cases root.

function __rsyncd_snapshot_offers
    # The words as the program gets them. Nothing that was typed is run.
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -l command ''
    set -l value_of ''
    set -l configuration
    set -l names
    set -l help ($program --help 2>/dev/null)
    or return
    for word in $words[2..-1]
        if test "$word" = --
            # What follows is a command of its own, or a path.
            __fish_complete_path "$current"
            return
        else if test -n "$value_of"
            if contains -- $value_of --config --rsyncd-conf
                set -a configuration $value_of $word
            end
            set value_of ''
        else if string match -qr -- '^--(config|rsyncd-conf)=' $word
            set -a configuration $word
        else if string match -q -- '-*' $word
            if string match -qr -- '^ *(-., )?'(string escape --style=regex -- $word)' <' $help
                set value_of $word
            end
        else if test -z "$command"
            set command $word
            set help ($program $command --help 2>/dev/null)
            or return
        else
            set -a names $word
        end
    end
    switch $value_of
        case ''
        case --to --config --rsyncd-conf --policy --path --unit-directory
            __fish_complete_path "$current"
            return
        case '*'
            return
    end
    if string match -q -- '-*' $current
        string replace -fr -- '^ *(-., )?(--[a-z-]+).*' '$2' $help
        return
    end
    if test -z "$command"
        set -l listed 0
        for line in $help
            switch $line
                case 'Commands:'
                    set listed 1
                case 'Options:'
                    break
                case '*'
                    test $listed = 1
                    and string replace -fr -- '^  ([a-z-]+)  .*' '$1' $line
            end
        end
        return
    end
    # The usage takes several lines if it is long.
    set -l usage (string match -r -- '(?s)Usage:.*?(?=\n\n)' (string join \n -- $help '' | string collect))
    set -l count (count $names)
    test "$command" = help
    and return
    if test $count = 0; and test "$command" = versions
        # A path in the working directory needs no module.
        __fish_complete_path "$current"
        $program complete $configuration 2>/dev/null
    else if test $count = 0; and string match -q '*MODULE*' -- $usage
        or string match -q '*MODULE]...*' -- $usage
        $program complete $configuration 2>/dev/null
    else if test "$command" = undelete
        $program complete $names[1] --expired $configuration 2>/dev/null
    else if test "$command" = expire
        or begin
            test $count -ge 1
            and string match -q '*NAME...*' -- $usage
        end
        or begin
            test $count = 1
            and string match -q '*NAME*' -- $usage
        end
        or begin
            test "$command" = diff
            and contains $count 1 2
        end
        $program complete $names[1] $configuration 2>/dev/null
    else
        __fish_complete_path "$current"
    end
end

complete -c rsyncd-snapshot -f -a '(__rsyncd_snapshot_offers)'
