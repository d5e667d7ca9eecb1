"""Makes the key pair that signs packages: elliptic curve P-256, the private half 0600 and outside every git checkout.

Run: python -m scripts.package.keygen        (or: fab package.keygen)
A passphrase comes from a private file or an environment variable, never from the command line, which others can see.
"""

from pathlib import Path

from potstill import cli, signing


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__, workload=False)
    parser.add_argument("--key", default="potstill", metavar="NAME", help="of the two files (default: potstill)")
    parser.add_argument("--keys", type=Path, help="the folder to put them in (default: $XDG_CONFIG_HOME/potstill)")
    parser.add_argument("--passphrase-file", type=Path, help="a file, mode 0600, whose text encrypts the private key")
    parser.add_argument("--passphrase-env", metavar="NAME", help="the environment variable that has the passphrase")
    arguments = parser.parse_args(argv)
    passphrase = signing.passphrase_from(arguments.passphrase_file, arguments.passphrase_env)
    folder = (arguments.keys or signing.keys_folder()).expanduser()
    private, public = signing.generate(folder, arguments.key, passphrase)
    print(f"fingerprint sha256:{signing.fingerprint(public)}")
    settings = {"private_key": private, "public_key": public}
    settings |= {"passphrase_file": arguments.passphrase_file, "passphrase_env": arguments.passphrase_env}
    print("into configs/project.yaml:\nsigning:")
    for key, value in settings.items():
        if value is not None:
            print(f"  {key}: {value}")
    cli.done([f"{private} (keep it, and keep it secret)", f"{public} (give it to whoever installs)"])
    print("next: fab package.export")


if __name__ == "__main__":
    cli.run(main)
