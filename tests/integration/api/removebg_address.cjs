// Redirect requests to api.remove.bg, an address hard-coded in its packages, to another server:
// REMOVEBG_ADDRESS=https://… node --require ./removebg_address.cjs program.js
const https = require("node:https");

const address = new URL(process.env.REMOVEBG_ADDRESS);
const protocols = { "http:": require("node:http"), "https:": https };
const request = https.request;

https.request = (options, ...rest) => {
  if ((options.hostname ?? options.host) !== "api.remove.bg") return request(options, ...rest);
  const { protocol, hostname, port, host } = address;
  const headers = { ...options.headers, host };
  return protocols[protocol].request({ ...options, protocol, hostname, host: hostname, port, headers, agent: undefined }, ...rest);
};
