// Starts the page; a file of its own because the page's policy allows no inline script.
"use strict";

window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  // The page talks to this broker and to nobody else.
  validatorUrl: null,
});
