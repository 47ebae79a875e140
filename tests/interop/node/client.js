// Carries out a list of calls of ssh2-sftp-client, given as JSON on standard input, and prints what each returned.
const fs = require("fs");
const Client = require("ssh2-sftp-client");

async function main() {
  const { connect, calls } = JSON.parse(fs.readFileSync(0, "utf8"));
  const client = new Client();
  await client.connect({ ...connect, privateKey: fs.readFileSync(connect.privateKey) });
  const results = [];
  for (const [name, ...args] of calls) {
    try {
      const value = await client[name](...args.map((arg) => (arg && arg.bytes ? Buffer.from(arg.bytes) : arg)));
      results.push(Buffer.isBuffer(value) ? value.toString() : value);
    } catch (error) {
      results.push({ error: error.message });
    }
  }
  await client.end();
  console.log(JSON.stringify(results));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
