'use strict';
// `docker` and `podman` in scenarios: sends its arguments and its input to the test's process, and prints the response. It is
// started for each command, so it loads as little as possible. The response consists of frames: a channel (1 and 2 are output, 0
// is the exit code), a length of four bytes, and that many bytes.
const { connect } = require('node:net');

module.exports = (socketPath, program) => {
  const socket = connect({ path: socketPath, allowHalfOpen: true });
  socket.write(`${JSON.stringify({ program, args: process.argv.slice(2) })}\n`);
  process.stdin.pipe(socket);
  let rest = Buffer.alloc(0);
  let ended = false;
  // Data written to a pipe may still be waiting for its reader.
  const end = (code) => process.stdout.write('', () => process.stderr.write('', () => process.exit(code)));
  socket.on('data', (part) => {
    rest = rest.length === 0 ? part : Buffer.concat([rest, part]);
    while (rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(1)) {
      const last = 5 + rest.readUInt32BE(1);
      const bytes = rest.subarray(5, last);
      if (rest[0] === 0) {
        ended = true;
        return end(Number(bytes.toString()));
      }
      (rest[0] === 1 ? process.stdout : process.stderr).write(bytes);
      rest = rest.subarray(last);
    }
  });
  // No exit code means that the test is over.
  const gone = () => ended || process.exit(1);
  socket.on('error', gone);
  socket.on('close', gone);
};
