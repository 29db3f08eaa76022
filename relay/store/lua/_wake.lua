-- Wake-ups: one fixed Celery message without arguments, pushed when none is outstanding; so the
-- lists stay at one message a queue however long no worker takes any.
-- %MQ% and the message are filled in by scripts.py; a contract test runs it through kombu.
local WAKE_TTL_S = 2
local function wake(queue, task)
  if call('SET', P .. 'woken:' .. queue, '1', 'NX', 'EX', WAKE_TTL_S) then
    if call('LLEN', '%MQ%' .. queue) > 0 then return end
    local tag = queue .. '-' .. clock[1] .. clock[2]
    call('LPUSH', '%MQ%' .. queue,
      '{"body":"[[],{},{\\"relay\\":1}]","content-encoding":"utf-8",' ..
      '"content-type":"application/json","headers":{"lang":"py","task":"' .. task ..
      '","id":"' .. tag .. '"},"properties":{"correlation_id":"' .. tag ..
      '","delivery_mode":2,"delivery_info":{"exchange":"","routing_key":"' .. queue ..
      '"},"priority":0,"delivery_tag":"' .. tag .. '"}}')
  end
end
local function wake_route() wake('route', 'relay.route') end
local function wake_pool(pool) wake('egress.' .. pool, 'relay.deliver') end
